"""Find the entries about a policy in the reports of all nodes. Only changed reports are read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tokenbucket.core.api.node_report import PodReport, PolicyReport
from tokenbucket.core.status.summary import Entry, PolicyHead, ReportedNode

Key = tuple[str, str, str]
"""Namespace, name and uid of a policy. The uid distinguishes it from a later policy with the same name."""


class _Content(NamedTuple):
    """Everything that a report contains about a policy."""

    policy: PolicyReport
    pods: tuple[PodReport, ...]


class ReportIndex:
    """All entries by policy."""

    def __init__(self) -> None:
        self._reports: dict[str, ReportedNode] = {}
        self._entries: dict[Key, dict[str, PolicyReport]] = defaultdict(dict)
        self._changes: dict[Key, int] = defaultdict(int)
        self.recent: frozenset[str] = frozenset()
        """The nodes with a recent report."""

    def update(self, reports: Iterable[ReportedNode], recent: Collection[str]) -> None:
        """Replace the reports. ``recent`` are the nodes with a recent one."""
        now = {report.name: report for report in reports}
        for name in self._reports.keys() - now.keys():
            self._replace(name, {}, self._reports[name])
        for name, report in now.items():
            before = self._reports.get(name)
            if before is not report and _differ(before, report):
                self._replace(name, _by_key(report), before)
        self._reports = now
        for name in now.keys() & (self.recent ^ frozenset(recent)):
            for key in _by_key(now[name]):
                self._changes[key] += 1
        self.recent = frozenset(recent)

    def _replace(self, node: str, now: Mapping[Key, _Content], before: ReportedNode | None) -> None:
        old = _by_key(before) if before else {}
        for key, entry in now.items():
            if old.pop(key, None) != entry:
                self._changes[key] += 1
            self._entries[key][node] = entry.policy
        for key in old:
            self._changes[key] += 1
            del self._entries[key][node]
            if not self._entries[key]:
                del self._entries[key]

    def of(self, head: PolicyHead) -> list[Entry]:
        """Return the entries about a policy."""
        found = self._of(head).items()
        return [Entry(self._reports[node], entry, node in self.recent) for node, entry in found]

    def unseen(self, head: PolicyHead, nodes: Iterable[str]) -> tuple[str, ...]:
        """Return those of the nodes without an entry about this generation of a policy."""
        entries = self._of(head)
        return tuple(
            sorted(
                node for node in nodes if node not in entries or entries[node].generation != head.generation
            )
        )

    def _of(self, head: PolicyHead) -> Mapping[str, PolicyReport]:
        return self._entries.get((head.namespace, head.name, head.uid), {})

    def changes(self, head: PolicyHead) -> int:
        """Return a number that differs after each change of an entry about a policy, or of its age."""
        return self._changes.get((head.namespace, head.name, head.uid), 0)


def _differ(before: ReportedNode | None, now: ReportedNode) -> bool:
    return not before or (before.report.policies, before.report.pods) != (
        now.report.policies,
        now.report.pods,
    )


def _by_key(report: ReportedNode) -> dict[Key, _Content]:
    pods: dict[tuple[str, str], list[PodReport]] = defaultdict(list)
    for pod in report.report.pods:
        pods[pod.namespace, pod.policy].append(pod)
    found: dict[Key, _Content] = {}
    for entry in report.report.policies:
        of_policy = tuple(pods.get((entry.namespace, entry.name), ()))
        found.setdefault((entry.namespace, entry.name, entry.uid), _Content(entry, of_policy))
    return found
