"""Find the entries about a policy in the reports of all nodes. Only changed reports are read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tokenbucket.core.api.node_report import PolicyReport
from tokenbucket.core.status.summary import PolicyHead, ReportedNode

Key = tuple[str, str, str]
"""Namespace, name and uid of a policy. The uid distinguishes it from a later policy with the same name."""


class ReportIndex:
    """All entries by policy."""

    def __init__(self) -> None:
        self._reports: dict[str, ReportedNode] = {}
        self._entries: dict[Key, dict[str, PolicyReport]] = defaultdict(dict)
        self._changes: dict[Key, int] = defaultdict(int)

    def update(self, reports: Iterable[ReportedNode]) -> None:
        """Replace the reports."""
        now = {report.name: report for report in reports}
        for name in self._reports.keys() - now.keys():
            self._replace(name, (), self._reports[name].report.policies)
        for name, report in now.items():
            before, entries = self._reports.get(name), report.report.policies
            if before is not report and (not before or before.report.policies != entries):
                self._replace(name, entries, before.report.policies if before else ())
        self._reports = now

    def _replace(self, node: str, now: Iterable[PolicyReport], before: Iterable[PolicyReport]) -> None:
        old, new = _by_key(before), _by_key(now)
        for key, entry in new.items():
            if old.pop(key, None) != entry:
                self._changes[key] += 1
            self._entries[key][node] = entry
        for key in old:
            self._changes[key] += 1
            del self._entries[key][node]
            if not self._entries[key]:
                del self._entries[key]

    def of(self, head: PolicyHead) -> list[tuple[ReportedNode, PolicyReport]]:
        """Return the entries about a policy, each with its node."""
        return [(self._reports[node], entry) for node, entry in self._of(head).items()]

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
        """Return a number that differs after each change of an entry about a policy."""
        return self._changes.get((head.namespace, head.name, head.uid), 0)


def _by_key(entries: Iterable[PolicyReport]) -> dict[Key, PolicyReport]:
    found: dict[Key, PolicyReport] = {}
    for entry in entries:
        found.setdefault((entry.namespace, entry.name, entry.uid), entry)
    return found
