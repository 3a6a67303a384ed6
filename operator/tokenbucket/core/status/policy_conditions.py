"""Compute the conditions of a policy: the state, its reason, and the action that you can take.

docs/reference/conditions.md describes the reasons of conditions.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tokenbucket import __version__
from tokenbucket.core.api.policy import Direction, Mode
from tokenbucket.core.status.explanation import degrades, explain, fails, find_reasons, waits
from tokenbucket.core.status.summary import Entry, Summary, in_number, some_of

_LONGEST_MESSAGE = 1024


class ConditionReason(enum.StrEnum):
    """The reason of a condition. The values are part of the API. Degraded also has the values of Reason."""

    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    REJECTED = "Rejected"
    PROGRAMMED = "Programmed"
    PARTLY_OVERRIDDEN = "PartlyOverridden"
    OBSERVED = "Observed"
    NO_MATCHING_PODS = "NoMatchingPods"
    PENDING = "Pending"
    UPDATING = "Updating"
    FAILED = "Failed"
    OVERRIDDEN = "Overridden"
    OFF = "Off"
    AGENT_UNAVAILABLE = "AgentUnavailable"
    REPORT_FULL = "ReportFull"
    AS_DECLARED = "AsDeclared"


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A condition without its type and time."""

    status: str
    reason: str
    """A ConditionReason, a Reason, or the reason that an agent of another version reports."""
    message: str
    intended: bool = False
    """Whether the policy is Ready although it is not programmed, because policies declare this state."""


def conditions(total: Summary, previous: Iterable[object], now: str) -> list[dict[str, str | int]]:
    """Return the conditions Accepted, Programmed, Degraded and Ready, and those that exist only while True.

    Tools that follow the conventions of kstatus wait while Reconciling is True, and fail if Stalled is.
    A condition keeps its transition time if ``previous`` has the same status. ``now`` is an RFC 3339 time.
    """
    accepted, programmed = _accepted(total), _programmed(total)
    verdicts = {
        "Accepted": accepted,
        "Programmed": programmed,
        "Degraded": _degraded(total),
        **_progress(accepted, programmed),
        "Ready": _ready(accepted, programmed),
    }
    since = {
        (str(before.get("type")), str(before.get("status"))): str(before.get("lastTransitionTime") or "")
        for before in previous
        if isinstance(before, Mapping)
    }
    return [
        {
            "type": name,
            "status": verdict.status,
            "observedGeneration": total.head.generation,
            "lastTransitionTime": since.get((name, verdict.status)) or now,
            "reason": str(verdict.reason),
            "message": verdict.message[:_LONGEST_MESSAGE],
        }
        for name, verdict in verdicts.items()
    ]


def _progress(accepted: _Verdict, programmed: _Verdict) -> dict[str, _Verdict]:
    """Return the conditions that exist only while they are True."""
    if accepted.status != "True":
        return {"Stalled": replace(accepted, status="True")}
    if programmed.reason in {ConditionReason.UPDATING, ConditionReason.PENDING}:
        return {"Reconciling": replace(programmed, status="True")}
    return {}


def _ready(accepted: _Verdict, programmed: _Verdict) -> _Verdict:
    if accepted.status != "True":
        return accepted
    return replace(programmed, status="True") if programmed.intended else programmed


def _accepted(total: Summary) -> _Verdict:
    if total.head.rejected:
        return _Verdict("False", ConditionReason.INVALID, total.head.rejected)
    unsupported = total.agents.unsupported
    but = f"; {_named(unsupported)} cannot enforce it before an upgrade of the agent" * bool(unsupported)
    return _Verdict("True", ConditionReason.ACCEPTED, f"the policy is valid{but}")


def _programmed(total: Summary) -> _Verdict:
    return next(filter(None, (rule(total) for rule in _RULES)), None) or _enforced(total)


def _rejected(total: Summary) -> _Verdict | None:
    if total.head.rejected:
        return _Verdict("False", ConditionReason.FAILED, "the policy is invalid; see the condition Accepted")
    return _rejected_by_agents(total) if total.rejecting else None


def _rejected_by_agents(total: Summary) -> _Verdict:
    """Return the state of a policy that the controller accepts: the policy is valid, and needs no edit."""
    first = total.rejecting[0]
    version = first.node.report.agent.version or "unknown"
    differs = f"; the controller has version {__version__}, the agent {version}" * (version != __version__)
    enforced = f"; enforced on {total.of_pods(total.pods.programmed)}"
    message = f"rejected on {_nodes(total.rejecting)}: {first.policy.rejected}{differs}{enforced}"
    return _Verdict("False", ConditionReason.REJECTED, message)


def _all_off(total: Summary) -> _Verdict | None:
    return _some_off(total) if total.matched and total.pods.off >= total.matched else None


def _turned_off(total: Summary) -> _Verdict | None:
    """Return the state of a policy whose own mode is Off, after all nodes have detached its limits."""
    if total.head.mode is not Mode.OFF:
        return None
    message = f"spec.mode is Off: {in_number(total.matched, 'selected pod')} without this policy"
    return _Verdict("False", ConditionReason.OFF, message, intended=True)


def _failed(total: Summary) -> _Verdict | None:
    failed = total.pods.failed
    if not failed:
        return None
    worst = max(total.current, key=lambda entry: entry.policy.pods.failed).node.name
    why = explain(find_reasons(total.current, fails))
    message = f"not enforced on {total.of_pods(failed)}{why}; see TokenBucketNode {worst}"
    return _Verdict("False", ConditionReason.FAILED, message)


def _unavailable(total: Summary) -> _Verdict | None:
    if not total.agents.alive and not total.dead:
        message = "no agent reports from any node: the selected pods are unknown; check the agent pods"
        return _Verdict("Unknown", ConditionReason.AGENT_UNAVAILABLE, message)
    if not total.dead:
        return _silent(total)
    pods = sum(entry.policy.pods.matched for entry in total.dead)
    enforced = all(
        entry.policy.pods.programmed >= entry.policy.pods.matched
        and entry.policy.generation == total.head.generation
        for entry in total.dead
    )
    times = [entry.node.written for entry in total.dead if entry.node.written]
    last = f" (last {'enforced' if enforced else 'reported'} at {min(times)})" if times else ""
    names = some_of(entry.node.name for entry in total.dead)
    where = f"{in_number(pods, 'pod')} on {in_number(len(total.dead), 'node')}"
    message = f"{where}{last}: no agent reports from {names}"
    return _Verdict("Unknown", ConditionReason.AGENT_UNAVAILABLE, message)


def _silent(total: Summary) -> _Verdict | None:
    if not total.agents.silent:
        return None
    known = f"enforced on {total.of_pods(total.pods.programmed)} elsewhere" if total.matched else ""
    where = some_of(total.agents.silent)
    message = f"no agent reports from {where}: the pods selected there are unknown; check the agent pods"
    return _Verdict("Unknown", ConditionReason.AGENT_UNAVAILABLE, "; ".join(filter(None, (message, known))))


def _all_overridden(total: Summary) -> _Verdict | None:
    if not total.matched or total.pods.overridden < total.matched:
        return None
    observes = " (a policy in Observe mode never overrides a policy in Enforce mode)"
    but = observes if total.head.mode is Mode.OBSERVE else ""
    winners = _winners(total) or "another policy"
    message = f"overridden by {winners}; to change that, raise spec.priority or change a podSelector{but}"
    return _Verdict("False", ConditionReason.OVERRIDDEN, message, intended=True)


def _some_off(total: Summary) -> _Verdict | None:
    off = total.pods.off
    if not off or total.head.mode is Mode.OFF:
        return None
    why = _set_by_enforcement_mode(total, Mode.OFF)
    return _Verdict("False", ConditionReason.OFF, f"not enforced on {total.of_pods(off)}: {why}")


def _observed_by_enforcement_mode(total: Summary) -> _Verdict | None:
    observed = total.pods.observed
    if not observed or total.head.mode is Mode.OBSERVE:
        return None
    why = _set_by_enforcement_mode(total, Mode.OBSERVE)
    return _Verdict(
        "False", ConditionReason.OBSERVED, f"packets only counted on {total.of_pods(observed)}: {why}"
    )


def _set_by_enforcement_mode(total: Summary, mode: Mode) -> str:
    entries = [entry for entry in total.current if entry.node.report.enforcement == mode]
    return f"the enforcement mode is {mode} on {_nodes(entries)}, set by the ConfigMap or the node label"


def _updating(total: Summary) -> _Verdict | None:
    late = sorted({*total.agents.unseen, *(entry.node.name for entry in total.behind)})
    if not late:
        return None
    verb = "has" if len(late) == 1 else "have"
    message = f"{_named(late)} {verb} not reported generation {total.head.generation} yet"
    earlier = sum(entry.policy.pods.programmed for entry in total.behind)
    before = f"; an earlier generation is enforced on {in_number(earlier, 'pod')}" * bool(earlier)
    return _Verdict("False", ConditionReason.UPDATING, message + before)


def _omitted(total: Summary) -> _Verdict | None:
    full = total.agents.omitting if total.head.mode is not Mode.OFF else ()
    message = f"{_named(full)}: the report omits this policy; delete other policies that select pods there"
    return _Verdict("Unknown", ConditionReason.REPORT_FULL, message) if full else None


def _pending(total: Summary) -> _Verdict | None:
    if not total.pending:
        return None
    why = explain(find_reasons(total.current, waits))
    message = f"not yet enforced on {total.of_pods(total.pending)}{why}"
    return _Verdict("False", ConditionReason.PENDING, message)


_RULES: tuple[Callable[[Summary], _Verdict | None], ...] = (
    _rejected,
    _all_off,
    _failed,
    _unavailable,
    _some_off,
    _observed_by_enforcement_mode,
    _updating,
    _omitted,
    _pending,
    _turned_off,
    _all_overridden,
)
"""In order of precedence."""


def _enforced(total: Summary) -> _Verdict:
    exempt = total.pods.exempt
    without = f"; limits do not apply to {in_number(exempt, 'pod')} in the network of the node" * bool(exempt)
    if not total.matched:
        message = f"no pod in namespace {total.head.namespace} matches spec.podSelector"
        message = without.removeprefix("; ") or message
        return _Verdict("True", ConditionReason.NO_MATCHING_PODS, message)
    winners = _winners(total)
    but = f"; overridden by {winners}" if winners else ""
    nodes = in_number(sum(1 for entry in total.current if entry.policy.pods.matched), "node")
    where = f"on {total.of_pods(total.pods.programmed)} on {nodes}{but}{without}"
    if total.head.mode is Mode.OBSERVE:
        return _Verdict("True", ConditionReason.OBSERVED, f"packets only counted {where}")
    reason = ConditionReason.PARTLY_OVERRIDDEN if winners else ConditionReason.PROGRAMMED
    return _Verdict("True", reason, f"enforced {where}")


def _degraded(total: Summary) -> _Verdict:
    found = sorted(find_reasons(total.of_generation, degrades), key=lambda each: not fails(each.reason))
    if not found:
        return _Verdict("False", ConditionReason.AS_DECLARED, "no limit differs from its declaration")
    return _Verdict("True", found[0].reason, f"not enforced as declared{explain(found)}")


def _winners(total: Summary) -> str:
    """Return a text such as "shop/other (ingress of 3 pods, egress of 1 pod)"."""
    pods: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in total.current:
        for override in entry.policy.overridden_by:
            pods[override.policy or "another policy"][override.direction] += override.pods
    ranked = sorted(pods, key=lambda policy: (-pods[policy].total(), policy))
    return some_of(f"{policy} ({_directions(pods[policy])})" for policy in ranked)


def _directions(pods: Counter[str]) -> str:
    known = [direction.value for direction in Direction if pods[direction.value]]
    return ", ".join(f"{direction} of {in_number(pods[direction], 'pod')}" for direction in known)


def _nodes(entries: Iterable[Entry]) -> str:
    return _named([entry.node.name for entry in entries])


def _named(nodes: Sequence[str]) -> str:
    """Return a text such as "2 nodes (a, b)"."""
    return f"{in_number(len(nodes), 'node')} ({some_of(nodes)})"
