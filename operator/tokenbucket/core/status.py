"""The status of a policy, summed from what the agents report: a pure function.

Computed again with its own conditions as the previous ones it gives an equal document, so that nothing is
written where nothing has changed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.core.desired import Reason
from tokenbucket.core.policy import Direction, Mode
from tokenbucket.core.report import NodeReport, PolicyReport

_DEGRADING = {
    Reason.NO_FQ,
    Reason.FOREIGN_QDISC,
    Reason.NO_NAMESPACE,
    Reason.BYPASSED,
    Reason.NO_INTERFACE,
    Reason.CONTENDED,
}
_NOT_FAILING = {
    Reason.NO_ADDRESS,
    Reason.NO_FQ,
    Reason.FOREIGN_QDISC,
    Reason.NO_NAMESPACE,
}
_KNOWN = frozenset(map(str, Reason))
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
"""What the schema allows; a report of another version may say anything."""
_NAMED = 3
"""So many reasons or nodes are named in a message."""
_LONGEST_WORDS = 512
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """What the status needs to know of a policy."""

    namespace: str
    name: str
    uid: str
    generation: int
    refused: str = ""
    """What is wrong with it, as far as the controller can tell; empty where it is valid."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node's report, and how far it is to be believed."""

    name: str
    report: NodeReport
    alive: bool
    """Whether the agent's pod is ready. What another says was true once."""
    since: str
    """When the report was written, RFC 3339."""


@dataclass(frozen=True, slots=True)
class _Entry:
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
class _Verdict:
    """A condition, but for its type and time."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Sum:
    """What all nodes say of the policy."""

    head: PolicyHead
    current: tuple[_Entry, ...]
    behind: tuple[_Entry, ...]
    """Of live agents that have not reported this generation yet."""
    dead: tuple[_Entry, ...]
    agents: int
    """Live ones, of all nodes."""

    @property
    def entries(self) -> tuple[_Entry, ...]:
        return (*self.current, *self.behind, *self.dead)

    @property
    def of_generation(self) -> tuple[_Entry, ...]:
        """Limits outlive the agent: what a dead one said of this generation is the best that is known."""
        return tuple(entry for entry in self.entries if entry.policy.generation == self.head.generation)

    @property
    def matched(self) -> int:
        return sum(entry.policy.matched for entry in self.entries)

    @property
    def refusing(self) -> tuple[_Entry, ...]:
        return tuple(entry for entry in self.current if entry.policy.refused)

    @property
    def pending(self) -> int:
        return sum(entry.pending for entry in self.current)

    def pods(self, state: str) -> int:
        """Pods in a state. Only what a live agent says of this generation is known."""
        return sum(getattr(entry.policy, state) for entry in self.current)

    def of_pods(self, number: int) -> str:
        """Such as "3 of 12 pods"."""
        return f"{number} of {_number(self.matched, 'pod')}"


def policy_status(
    policy: PolicyHead,
    reports: Iterable[NodeState],
    previous_conditions: Iterable[object],
    now: str,
    agents: int,
) -> dict[str, Any]:
    """The whole status of a TokenBucketPolicy. ``reports`` are those that speak of it, ``agents`` is how many
    live agents there are, whatever they speak of; ``now`` is RFC 3339.
    """
    total = _sum(policy, reports, agents)
    programmed, matched = total.pods("programmed"), total.matched
    document = {
        "observedGeneration": policy.generation,
        "effective": _effective(total),
        "action": _actions(total),
        "pods": {
            "matched": matched,
            "programmed": programmed,
            "degraded": total.pods("degraded"),
            "failed": total.pods("failed"),
            "summary": f"{programmed}/{matched}",
        },
        "nodes": {
            "matched": sum(1 for entry in total.entries if entry.policy.matched),
            "unavailable": len(total.dead),
        },
        "conditions": _conditions(total, previous_conditions, now),
    }
    return {name: value for name, value in document.items() if value not in ({}, "")}


def _sum(head: PolicyHead, reports: Iterable[NodeState], agents: int) -> _Sum:
    current, behind, dead = [], [], []
    for node in sorted(reports, key=lambda node: node.name):
        given = _find(head, node.report)
        if given is None:
            continue
        entry = _Entry(node, given)
        if not node.alive:
            if given.matched:
                dead.append(entry)
        elif given.generation == head.generation:
            current.append(entry)
        else:
            behind.append(entry)
    return _Sum(head, tuple(current), tuple(behind), tuple(dead), agents)


def _find(head: PolicyHead, report: NodeReport) -> PolicyReport | None:
    """What a node says of this very policy, not of an earlier one of its name."""
    wanted = (head.namespace, head.name, head.uid)
    return next((each for each in report.policies if (each.namespace, each.name, each.uid) == wanted), None)


# --- what is in force


def _effective(total: _Sum) -> dict[str, str]:
    found = {direction.value: _most_common(total, direction.value) for direction in Direction}
    return {direction: words for direction, words in found.items() if words}


def _most_common(total: _Sum, direction: str) -> str:
    pods: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for entry in total.of_generation:
        words = entry.policy.effective.get(direction)
        if words:
            pods[words] += entry.policy.programmed
            nodes[words] += 1
    if not nodes:
        return ""
    common = min(nodes, key=lambda words: (-pods[words], -nodes[words], words))
    others = nodes.total() - nodes[common]
    suffix = f" (differs on {_number(others, 'node')})" if others else ""
    return common[: _LONGEST_WORDS - len(suffix)] + suffix


def _actions(total: _Sum) -> str:
    pods: Counter[str] = Counter()
    for entry in total.of_generation:
        for action in filter(None, entry.policy.action.values()):
            pods[action] += entry.policy.programmed
    return ", ".join(sorted(pods, key=lambda action: (-pods[action], action)))[:_LONGEST_WORDS]


# --- conditions


def _conditions(total: _Sum, previous: Iterable[object], now: str) -> list[dict[str, str | int]]:
    accepted, programmed = _accepted(total), _programmed(total)
    verdicts = {
        "Accepted": accepted,
        "Programmed": programmed,
        "Degraded": _degraded(total),
        "Ready": programmed if accepted.status == "True" else accepted,
    }
    since = {
        (str(each.get("type")), str(each.get("status"))): str(each.get("lastTransitionTime") or "")
        for each in previous
        if isinstance(each, Mapping)
    }
    return [
        {
            "type": name,
            "status": verdict.status,
            "observedGeneration": total.head.generation,
            "lastTransitionTime": since.get((name, verdict.status)) or now,
            "reason": verdict.reason,
            "message": verdict.message[:_LONGEST_MESSAGE],
        }
        for name, verdict in verdicts.items()
    ]


def _accepted(total: _Sum) -> _Verdict:
    if total.head.refused:
        return _Verdict("False", "Invalid", total.head.refused)
    if total.refusing:
        first = total.refusing[0]
        version = first.node.report.agent_version or "an unknown version"
        message = (
            f"refused on {_nodes(total.refusing)}: {first.policy.refused}"
            f"; the controller accepts it: is the agent ({version}) of the controller's version?"
        )
        return _Verdict("False", "Invalid", message)
    return _Verdict("True", "Accepted", "the policy is valid")


def _programmed(total: _Sum) -> _Verdict:
    return next(filter(None, (rule(total) for rule in _RULES)), None) or _in_force(total)


def _refused(total: _Sum) -> _Verdict | None:
    if total.head.refused:
        return _Verdict("False", "Failed", "the policy is invalid, see Accepted")
    if total.refusing:
        message = f"refused on {_nodes(total.refusing)}, see Accepted; in force on "
        return _Verdict("False", "Failed", message + total.of_pods(total.pods("programmed")))
    return None


def _all_off(total: _Sum) -> _Verdict | None:
    return _some_off(total) if total.matched and total.pods("off") >= total.matched else None


def _failed(total: _Sum) -> _Verdict | None:
    failed = total.pods("failed")
    if not failed:
        return None
    worst = max(total.current, key=lambda entry: entry.policy.failed).node.name
    why = _explain(_found(total.current, lambda reason: reason not in _NOT_FAILING))
    message = f"not in force on {total.of_pods(failed)}{why}; see TokenBucketNode {worst}"
    return _Verdict("False", "Failed", message)


def _unavailable(total: _Sum) -> _Verdict | None:
    if not total.agents and not total.dead:
        message = "no agent is ready on any node: nobody tells which pods spec.podSelector selects"
        return _Verdict("Unknown", "AgentUnavailable", message)
    if not total.dead:
        return None
    pods = sum(entry.policy.matched for entry in total.dead)
    in_force = all(
        entry.policy.programmed >= entry.policy.matched and entry.policy.generation == total.head.generation
        for entry in total.dead
    )
    times = [entry.node.since for entry in total.dead if entry.node.since]
    last = f", last {'in force' if in_force else 'reported'} at {min(times)}" if times else ""
    names = _names(total.dead)
    message = (
        f"{_number(pods, 'pod')} on {_number(len(total.dead), 'node')}{last}; no agent is ready on {names}"
    )
    return _Verdict("Unknown", "AgentUnavailable", message)


def _all_overridden(total: _Sum) -> _Verdict | None:
    if not total.matched or total.pods("overridden") < total.matched:
        return None
    pods = _number(total.matched, "pod")
    message = (
        f"{_winners(total)} in force on {pods} instead; raise spec.priority above, or change a podSelector"
    )
    return _Verdict("False", "Overridden", message)


def _some_off(total: _Sum) -> _Verdict | None:
    off = total.pods("off")
    if not off:
        return None
    entries = [entry for entry in total.current if entry.policy.off]
    why = f"enforcement is Off on {_nodes(entries)}, by the ConfigMap or the node's label"
    if any(entry.node.report.enforcement != Mode.OFF for entry in entries):
        why = "spec.mode is Off"
    return _Verdict("False", "Off", f"kept off {total.of_pods(off)}: {why}")


def _pending(total: _Sum) -> _Verdict | None:
    parts = []
    if total.behind:
        nodes = f"{len(total.behind)} of {_number(len(total.entries), 'node')}"
        verb = "has" if len(total.behind) == 1 else "have"
        parts.append(f"{nodes} {verb} not yet reported generation {total.head.generation}")
    if total.pending:
        why = _explain(_found(total.current, lambda reason: reason == Reason.NO_ADDRESS))
        parts.append(f"not yet in force on {total.of_pods(total.pending)}{why}")
    return _Verdict("False", "Pending", "; ".join(parts)) if parts else None


_RULES: tuple[Callable[[_Sum], _Verdict | None], ...] = (
    _refused,
    _all_off,
    _failed,
    _unavailable,
    _all_overridden,
    _some_off,
    _pending,
)
"""In order of precedence."""


def _in_force(total: _Sum) -> _Verdict:
    if not total.matched:
        namespace = total.head.namespace
        return _Verdict("True", "NoMatchingPods", f"spec.podSelector selects no pod of namespace {namespace}")
    overridden = total.pods("overridden")
    but = f"; {_winners(total)} on {_number(overridden, 'other')}" if overridden else ""
    nodes = _number(sum(1 for entry in total.current if entry.policy.matched), "node")
    message = f"in force on {total.of_pods(total.pods('programmed'))}, on {nodes}{but}"
    return _Verdict("True", "Programmed", message)


def _degraded(total: _Sum) -> _Verdict:
    found = _found(total.of_generation, lambda reason: reason in _DEGRADING or reason not in _KNOWN)
    if not found:
        return _Verdict("False", "AsDeclared", "no pod is limited otherwise than declared")
    return _Verdict("True", found[0].reason, f"not as declared{_explain(found)}")


# --- words


@dataclass(slots=True)
class _Found:
    """One reason, over all nodes."""

    reason: str
    pods: int = 0
    nodes: set[str] = field(default_factory=set)
    messages: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        message = min(self.messages, key=lambda text: (-self.messages[text], text))
        where = f"{_number(self.pods, 'pod')} on {_number(len(self.nodes), 'node')}"
        return f"{self.reason} on {where}{f' ({message})' if message else ''}"


def _found(entries: Iterable[_Entry], wanted: Callable[[str], bool]) -> list[_Found]:
    """Reasons, that of the most pods first."""
    found: dict[str, _Found] = {}
    for entry in entries:
        for each in entry.policy.reasons:
            if each.pods > 0 and _REASON.fullmatch(each.reason) and wanted(each.reason):
                reason = found.setdefault(each.reason, _Found(each.reason))
                reason.pods += each.pods
                reason.nodes.add(entry.node.name)
                reason.messages[each.message] += each.pods
    return sorted(found.values(), key=lambda each: (-each.pods, each.reason))


def _explain(found: Sequence[_Found]) -> str:
    more = f"; {_number(len(found) - _NAMED, 'reason')} more" if len(found) > _NAMED else ""
    return f": {'; '.join(map(str, found[:_NAMED]))}{more}" if found else ""


def _winners(total: _Sum) -> str:
    """Such as "shop/other is"."""
    pods: dict[str, int] = defaultdict(int)
    for entry in total.current:
        if entry.policy.overridden:
            pods[entry.policy.overridden_by or "another policy"] += entry.policy.overridden
    first = min(pods, key=lambda name: (-pods[name], name))
    return f"{first} is" if len(pods) == 1 else f"{first} and {len(pods) - 1} more are"


def _nodes(entries: Iterable[_Entry]) -> str:
    """Such as "2 nodes (a, b)"."""
    entries = tuple(entries)
    return f"{_number(len(entries), 'node')} ({_names(entries)})"


def _names(entries: Iterable[_Entry]) -> str:
    names = [entry.node.name for entry in entries]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
