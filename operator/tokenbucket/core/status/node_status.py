"""Compute the status of a TokenBucketNode.

The agent reports, for each policy, the pods by state and the reasons. An agent that does not run cannot
report its own state: the controller adds the condition AgentReady, from the agent pod.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenbucket.core.api.enforcement import ModeSource
from tokenbucket.core.api.node_report import Override, PodCounts, PodReport, PolicyReport, ReasonCount
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Mode, Policy, RejectedPolicy
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.active_limit import ActiveLimit
from tokenbucket.core.planning.attachment import HookPoint
from tokenbucket.core.planning.foreign import ForeignProgram
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.planning.reasons import Effect, Reason

_PROGRAMMED = {"programmed", "degraded"}
_REASONS = _OVERRIDES = 16
AGENT_READY = "AgentReady"
_GOOD = ("True", "Ready", "the agent reports")
_ABSENT = (
    "False",
    "NoPod",
    "the node has no agent pod: existing limits stay active, new pods are not limited",
)


@dataclass(frozen=True, slots=True)
class DesiredInput:
    """The declared state of a node."""

    policies: tuple[Policy, ...] = ()
    pods: tuple[Pod, ...] = ()
    enforcement: Mode = Mode.ENFORCE
    cleanup: bool = False
    """Whether the agent must remove everything that tokenbucket installed on the node."""
    rejected: tuple[RejectedPolicy, ...] = ()
    problem: str = ""
    """Problem of the enforcement settings, or a notice of an override. Empty if there is none."""
    enforcement_from: ModeSource = ModeSource.RELEASE
    """The place that sets the enforcement mode."""
    policies_version: int = -1
    """Newest resource version that the policies contain. -1 in a folder of manifests."""
    received_at: float | None = field(default=None, compare=False)
    """Monotonic time of the first change that no snapshot before contains. ``None`` without a change."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a reconcile run."""

    actions: int = 0
    complete: bool = True
    """Whether nothing failed that may succeed when it is retried."""
    failing: Collection[SlotKey] = ()
    """The limits of which an action failed. The next run retries it."""
    deviations: tuple[Deviation, ...] = ()
    """The limits that are not enforced as declared."""
    active: Mapping[SlotKey, ActiveLimit] = field(default_factory=dict)
    """The limits that are attached at all their hooks."""
    attachments: Mapping[str, int] = field(default_factory=dict)
    """Where the active limits are attached, and how many of their attachments are there."""
    points: Mapping[SlotKey, Collection[HookPoint]] = field(default_factory=dict)
    """The hooks of each limit and guard."""
    foreign_programs: frozenset[ForeignProgram] = frozenset()
    """The programs of others at interfaces that lead to pods."""
    fq: bool = False
    """Whether the kernel of the node has fq."""
    waits: bool = False
    """Whether work is left that only time makes possible, and that no event reports."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """Input and result of a reconcile run, from which the agent reports."""

    inputs: DesiredInput = DesiredInput()
    outcome: Outcome = Outcome()


@dataclass(slots=True)
class _Count:
    """The pods of one policy."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: dict[Reason, list[str]] = field(default_factory=lambda: defaultdict(list))
    observed: int = 0
    winners: Counter[tuple[str, Direction]] = field(default_factory=Counter)
    texts: dict[Direction, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    actions: dict[Direction, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def policy_reports(state: NodeState) -> tuple[PolicyReport, ...]:
    """Return a report for each policy that selects pods, and for each rejected one of a namespace with pods.

    A rejected policy is reported with the pods of its last valid version.
    """
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in state.inputs.pods:
        if not pod.ended:
            pods[pod.id.namespace].append(pod)
    classifier = _PodClassifier(state)
    reports = {}
    for policy in state.inputs.policies:
        selected = [pod for pod in pods[policy.namespace] if policy.selector.matches(pod.labels)]
        if selected:
            reports[str(policy)] = _report(policy, len(selected), classifier.count(policy, selected))
    for rejected in state.inputs.rejected:
        if pods[rejected.namespace]:
            name = f"{rejected.namespace}/{rejected.name}"
            reports[name] = _rejection(rejected, reports.get(name))
    return tuple(sorted(reports.values(), key=lambda report: (report.namespace, report.name)))


def pods_not_programmed(state: NodeState) -> Iterator[PodReport]:
    """Yield the reason of each limit that is not enforced as declared."""
    winners = Winners(state.inputs.policies)
    pods = {pod.id: pod for pod in state.inputs.pods}
    for deviation in state.outcome.deviations:
        subject, direction = deviation.key.subject, deviation.key.direction
        pod = pods.get(subject) if isinstance(subject, PodId) else None
        policy = _winner(winners, pod, direction) if pod else None
        if pod and policy and deviation.reason.effect is not Effect.EXEMPT:
            reason, message = deviation.reason.value, deviation.message
            yield PodReport(pod.id.namespace, pod.id.name, policy.name, direction.value, reason, message)


def annotation_report(state: NodeState) -> PolicyReport | None:
    """Return a report about the pods with annotations of limits, or None if there are none."""
    pods = [(pod, pod.annotated) for pod in state.inputs.pods if pod.annotated and not pod.ended]
    if not pods:
        return None
    classifier, count = _PodClassifier(state), _Count()
    for pod, annotated in pods:
        classifier.add(pod, annotated.policy, annotated.directions, count)
    return _report(replace(pods[0][1].policy, namespace=""), len(pods), count)


def _winner(winners: Winners, pod: Pod, direction: Direction) -> Policy | None:
    """Return the policy of a direction, or the annotations that are not valid."""
    return winners.of(pod).get(direction) or (pod.annotated.policy if pod.annotated else None)


class _PodClassifier:
    """Classify the pods of a policy by state."""

    def __init__(self, state: NodeState) -> None:
        self._enforcement, self._active = state.inputs.enforcement, state.outcome.active
        self._winners = Winners(state.inputs.policies)
        self._deviations: dict[SlotKey, list[Deviation]] = defaultdict(list)
        for deviation in state.outcome.deviations:
            self._deviations[deviation.key].append(deviation)

    def count(self, policy: Policy, pods: Sequence[Pod]) -> _Count:
        count = _Count()
        for pod in pods:
            self.add(pod, policy, policy.limits.keys(), count)
        return count

    def add(self, pod: Pod, policy: Policy, directions: Collection[Direction], count: _Count) -> None:
        """Add a pod to the count of a policy that declares limits of these directions."""
        count.states[self._state(pod, policy, directions, count)] += 1

    def _state(self, pod: Pod, policy: Policy, directions: Collection[Direction], count: _Count) -> str:
        active = self._active
        if pod.host_network:
            return "exempt"
        if Mode.OFF in {policy.mode, self._enforcement}:
            return "off"
        winning = self._winners.of(pod)
        lost = [each for each in directions if winning.get(each, policy) is not policy]
        count.winners.update((str(winning[direction]), direction) for direction in lost)
        keys = [SlotKey(pod.id, direction) for direction in directions if direction not in lost]
        if not keys:
            return "overridden"
        found = [deviation for key in keys for deviation in self._deviations.get(key, ())]
        reasons = {deviation.reason: deviation.message for deviation in found}
        for reason, message in reasons.items():
            count.reasons[reason].append(message)
        for key in active.keys() & set(keys):
            count.texts[key.direction][active[key].text] += 1
            count.actions[key.direction][active[key].action] += 1
        state = _classify(set(reasons), active=active.keys() >= set(keys))
        if state in _PROGRAMMED and any(active[key].config.observe for key in keys):
            count.observed += 1
        return state


def _classify(reasons: set[Reason], *, active: bool) -> str:
    """Return the state of a pod. It is programmed only if all directions of the policy are enforced."""
    effects = {reason.effect for reason in reasons}
    if Effect.FAILED in effects:
        return "failed"
    if not active:
        return "pending"
    return "degraded" if Effect.DEGRADED in effects else "programmed"


def _report(policy: Policy, matched: int, count: _Count) -> PolicyReport:
    states = count.states
    reasons = [
        ReasonCount(reason.value, len(texts), texts[0])
        for reason, texts in sorted(count.reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return PolicyReport(
        namespace=policy.namespace,
        name=policy.name,
        uid=policy.uid,
        generation=policy.generation,
        pods=PodCounts(
            matched=matched - states["exempt"],
            programmed=sum(states[state] for state in _PROGRAMMED),
            degraded=states["degraded"],
            observed=count.observed,
            failed=states["failed"],
            pending=states["pending"],
            overridden=states["overridden"],
            off=states["off"],
            exempt=states["exempt"],
        ),
        overridden_by=_overrides(count.winners),
        effective={direction.value: _most_common(texts) for direction, texts in count.texts.items()},
        action={direction.value: _most_common(texts) for direction, texts in count.actions.items()},
        reasons=tuple(reasons[:_REASONS]),
    )


def _overrides(winners: Counter[tuple[str, Direction]]) -> tuple[Override, ...]:
    """Return the overriding policies, sorted by the number of pods in descending order."""
    ranked = sorted(winners.items(), key=lambda item: (-item[1], item[0]))[:_OVERRIDES]
    return tuple(Override(policy, direction.value, pods) for (policy, direction), pods in ranked)


def _rejection(rejected: RejectedPolicy, last_valid: PolicyReport | None) -> PolicyReport:
    uid, generation = rejected.uid, rejected.generation
    report = last_valid or PolicyReport(rejected.namespace, rejected.name, uid, generation)
    return replace(report, uid=uid, generation=generation, rejected=rejected.message)


def _most_common(texts: Counter[str]) -> str:
    """Return the most common text. Ties go to the first text in order, so that reports are stable."""
    return min(texts, key=lambda word: (-texts[word], word), default="")


def missing_limits(state: NodeState, winners: Winners, pod: Pod) -> str:
    """Return the limits of a pod that are not enforced, as text. Empty if all are enforced."""
    if state.inputs.enforcement is Mode.OFF or pod.host_network:
        return ""
    found = {deviation.key: deviation for deviation in state.outcome.deviations}
    keys = [SlotKey(pod.id, direction) for direction in winners.of(pod)]
    missing = [key for key in keys if key not in state.outcome.active]
    return "; ".join(str(found.get(key, f"{key}: not enforced yet")) for key in missing)


def agent_condition(
    silence: str, pods: Mapping[str, bool], previous: Iterable[object], now: str
) -> dict[str, Any]:
    """Return the condition. The transition time changes only if the status changes.

    ``silence`` is the reason for which the report is outdated, or an empty text. ``pods`` maps each agent pod
    on the node to its readiness. ``now`` is an RFC 3339 time.
    """
    status, reason, message = _readiness(silence, pods)
    for before in previous:
        if isinstance(before, Mapping) and (before.get("type"), before.get("status")) == (
            AGENT_READY,
            status,
        ):
            now = before.get("lastTransitionTime") or now
    return {
        "type": AGENT_READY,
        "status": status,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def _readiness(silence: str, pods: Mapping[str, bool]) -> tuple[str, str, str]:
    if not silence:
        return _GOOD
    if not pods:
        return _ABSENT
    reason = "Silent" if any(pods.values()) else "NotReady"
    state = silence if any(pods.values()) else "is not ready"
    message = f"pod {min(pods)} {state}: existing limits stay active, new pods may be unlimited"
    return "False", reason, message
