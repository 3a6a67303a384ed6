"""What all nodes together say of one policy, and how far each is to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tokenbucket.core.api.node_report import NodeReport, PolicyReport
from tokenbucket.core.api.policy import Mode

_NAMED = 3
"""So many are named in a message."""


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """What the status needs to know of a policy."""

    namespace: str
    name: str
    uid: str
    generation: int
    refused: str = ""
    """What is wrong with it, as far as the controller can tell; empty where it is valid."""
    mode: Mode = Mode.ENFORCE
    declared: Mapping[str, str] = field(default_factory=dict)
    """By direction, the limit in words, where it is valid."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node's report, and how far it is to be believed."""

    name: str
    report: NodeReport
    alive: bool
    """Whether the agent's pod is ready. What another says was true once."""
    since: str
    """When the agent wrote the report, RFC 3339."""


@dataclass(frozen=True, slots=True)
class Agents:
    """What is known of the agents, whatever policies they speak of."""

    alive: int
    silent: tuple[str, ...] = ()
    """Nodes without a live one whose last report is older than the policy: it may select pods there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one node says of the policy."""

    node: NodeState
    policy: PolicyReport

    @property
    def pending(self) -> int:
        """A pod that the report does not account for is pending too."""
        given = self.policy
        counted = given.programmed + given.failed + given.overridden + given.off
        return max(given.pending, given.matched - counted)


@dataclass(frozen=True, slots=True)
class Summary:
    """What all nodes say of the policy."""

    head: PolicyHead
    current: tuple[Entry, ...]
    behind: tuple[Entry, ...]
    """Of live agents that have not reported this generation yet."""
    dead: tuple[Entry, ...]
    agents: Agents

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All, live or not."""
        return (*self.current, *self.behind, *self.dead)

    @property
    def of_generation(self) -> tuple[Entry, ...]:
        """Limits outlive the agent: what a dead one said of this generation is the best that is known."""
        return tuple(entry for entry in self.entries if entry.policy.generation == self.head.generation)

    @property
    def matched(self) -> int:
        """Pods that the policy selects, as far as is known."""
        return sum(entry.policy.matched for entry in self.entries)

    @property
    def refusing(self) -> tuple[Entry, ...]:
        """Of agents that do not accept it."""
        return tuple(entry for entry in self.current if entry.policy.refused)

    @property
    def pending(self) -> int:
        """Pods that wait for it."""
        return sum(entry.pending for entry in self.current)

    def pods(self, state: str) -> int:
        """Pods in a state. Only what a live agent says of this generation is known."""
        return sum(getattr(entry.policy, state) for entry in self.current)

    def of_pods(self, number: int) -> str:
        """Such as "3 of 12 pods"."""
        return f"{number} of {in_number(self.matched, 'pod')}"


def summary_of(head: PolicyHead, reports: Iterable[NodeState], agents: Agents) -> Summary:
    """``reports`` are those that speak of the policy, or of an earlier one of its name."""
    current, behind, dead = [], [], []
    for node in sorted(reports, key=lambda node: node.name):
        given = _find(head, node.report)
        if given is None:
            continue
        entry = Entry(node, given)
        if not node.alive:
            if given.matched:
                dead.append(entry)
        elif given.generation == head.generation:
            current.append(entry)
        else:
            behind.append(entry)
    return Summary(head, tuple(current), tuple(behind), tuple(dead), agents)


def _find(head: PolicyHead, report: NodeReport) -> PolicyReport | None:
    """What a node says of this very policy, not of an earlier one of its name."""
    wanted = (head.namespace, head.name, head.uid)
    return next((each for each in report.policies if (each.namespace, each.name, each.uid) == wanted), None)


def some_of(names: Iterable[str]) -> str:
    """Such as "a, b, c and 2 more"."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def in_number(number: int, noun: str) -> str:
    """Such as "1 pod", or "2 pods"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
