"""Summarize the reports of all nodes about one policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenbucket.core.api.node_report import NodeReport, PodCounts, PolicyReport
from tokenbucket.core.api.policy import Mode

_NAMED = 3
"""Maximum number of names in a message."""


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """The fields of a policy that its status needs."""

    namespace: str
    name: str
    uid: str
    generation: int
    rejected: str = ""
    """The error that the controller found in the policy. Empty if the policy is valid."""
    mode: Mode = Mode.ENFORCE
    declared: Mapping[str, str] = field(default_factory=dict)
    """Description of the limit by direction. Empty if the policy is invalid."""


@dataclass(frozen=True, slots=True)
class ReportedNode:
    """A TokenBucketNode."""

    name: str
    report: NodeReport
    written: str
    """RFC 3339 time at which the agent wrote the report."""
    uid: str = ""
    conditions: Sequence[object] = ()
    alive: bool = False
    """Whether the agent pod is ready. If not, the report may be outdated."""


@dataclass(frozen=True, slots=True)
class Agents:
    """State of the agents, independent of policies."""

    alive: int
    silent: tuple[str, ...] = ()
    """Nodes without a ready agent whose last report is older than the policy, which may select pods there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The report of one node about the policy."""

    node: ReportedNode
    policy: PolicyReport

    @property
    def pending(self) -> int:
        """Return the number of pending pods, including pods that the report does not count."""
        pods = self.policy.pods
        return max(pods.pending, pods.matched - pods.programmed - pods.failed - pods.overridden - pods.off)


@dataclass(frozen=True, slots=True)
class Summary:
    """The reports of all nodes about the policy."""

    head: PolicyHead
    current: tuple[Entry, ...]
    behind: tuple[Entry, ...]
    """Entries of ready agents that have not reported this generation yet."""
    dead: tuple[Entry, ...]
    agents: Agents
    pods: PodCounts
    """Sums over ``current``."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, with or without a ready agent."""
        return (*self.current, *self.behind, *self.dead)

    @property
    def of_generation(self) -> tuple[Entry, ...]:
        """Return the entries of this generation, including last reports of stopped agents."""
        return tuple(entry for entry in self.entries if entry.policy.generation == self.head.generation)

    @property
    def matched(self) -> int:
        """Return the number of known pods that the policy selects."""
        return sum(entry.policy.pods.matched for entry in self.entries)

    @property
    def rejecting(self) -> tuple[Entry, ...]:
        """Return the entries of agents that rejected the policy."""
        return tuple(entry for entry in self.current if entry.policy.rejected)

    @property
    def pending(self) -> int:
        """Return the number of pending pods."""
        return sum(entry.pending for entry in self.current)

    def of_pods(self, number: int) -> str:
        """Return a text such as "3 of 12 pods"."""
        return f"{number} of {in_number(self.matched, 'pod')}"


def summary_of(head: PolicyHead, reports: Iterable[ReportedNode], agents: Agents) -> Summary:
    """Return the summary of a policy. Ignore reports about an earlier policy with the same name."""
    current, behind, dead = [], [], []
    for node in sorted(reports, key=lambda node: node.name):
        given = _find(head, node.report)
        if given is None:
            continue
        entry = Entry(node, given)
        if not node.alive:
            if given.pods.matched:
                dead.append(entry)
        elif given.generation == head.generation:
            current.append(entry)
        else:
            behind.append(entry)
    pods = PodCounts.sum(entry.policy.pods for entry in current)
    return Summary(head, tuple(current), tuple(behind), tuple(dead), agents, pods)


def _find(head: PolicyHead, report: NodeReport) -> PolicyReport | None:
    """Return the report about this policy, not about an earlier policy with the same name."""
    wanted = (head.namespace, head.name, head.uid)
    found = (policy for policy in report.policies if (policy.namespace, policy.name, policy.uid) == wanted)
    return next(found, None)


def some_of(names: Iterable[str]) -> str:
    """Return a text such as "a, b, c and 2 more"."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def in_number(number: int, noun: str) -> str:
    """Return a text such as "1 pod", or "2 pods"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
