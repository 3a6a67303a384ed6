"""Summarize the reports of all nodes about one policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenbucket.core.api.node_report import NodeReport, PodCounts, PolicyReport
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.api.selector import Selector

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
    selector: Selector | None = None
    """``None`` if the policy is invalid."""
    features: frozenset[str] = frozenset()
    """Parts of the API that the policy uses."""


@dataclass(frozen=True, slots=True)
class ReportedNode:
    """A TokenBucketNode."""

    name: str
    report: NodeReport
    written: str
    """RFC 3339 time at which the agent wrote the report."""
    uid: str = ""
    conditions: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Agents:
    """State of the agents, independent of policies."""

    alive: bool
    """Whether any agent reports."""
    silent: tuple[str, ...] = ()
    """Nodes with selected pods, or with unknown pods, and without a recent report."""
    unseen: tuple[str, ...] = ()
    """Nodes with a recent report whose agents have not used this generation. It may select pods there."""
    unsupported: tuple[str, ...] = ()
    """Nodes with an agent that does not support a part of the API that the policy uses."""
    omitting: tuple[str, ...] = ()
    """Nodes with selected pods, or with unknown pods, whose reports have no room for the policy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The report of one node about the policy."""

    node: ReportedNode
    policy: PolicyReport
    alive: bool
    """Whether the report is recent."""

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
    """Entries of recent reports about an earlier generation."""
    dead: tuple[Entry, ...]
    agents: Agents
    pods: PodCounts
    """Sums over ``current``."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, recent or not."""
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
    def reported(self) -> PodCounts:
        """Return the sums over all recent reports. Limits of an earlier generation stay active."""
        return PodCounts.sum(entry.policy.pods for entry in (*self.current, *self.behind))

    @property
    def pending(self) -> int:
        """Return the number of pending pods."""
        return sum(entry.pending for entry in self.current)

    def of_pods(self, number: int) -> str:
        """Return a text such as "3 of 12 pods"."""
        return f"{number} of {in_number(self.matched, 'pod')}"


def summary_of(head: PolicyHead, entries: Iterable[Entry], agents: Agents) -> Summary:
    """Return the summary of the entries about a policy."""
    current, behind, dead = [], [], []
    for entry in sorted(entries, key=lambda entry: entry.node.name):
        if not entry.alive:
            if entry.policy.pods.matched:
                dead.append(entry)
        elif entry.policy.generation == head.generation:
            current.append(entry)
        else:
            behind.append(entry)
    pods = PodCounts.sum(entry.policy.pods for entry in current)
    return Summary(head, tuple(current), tuple(behind), tuple(dead), agents, pods)


def some_of(names: Iterable[str]) -> str:
    """Return a text such as "a, b, c and 2 more"."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def in_number(number: int, noun: str) -> str:
    """Return a text such as "1 pod", or "2 pods"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
