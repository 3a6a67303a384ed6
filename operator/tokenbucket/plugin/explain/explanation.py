"""Explain a pod: the pure function from what the API holds to causes, limits and next steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.policy import Direction, Policy
from tokenbucket.core.limits.bucket import as_declared
from tokenbucket.core.planning.precedence import Winners, advantage, rank
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.explain.cause import Cause, cause_of_reason
from tokenbucket.plugin.explain.codes import State
from tokenbucket.plugin.explain.evidence import Evidence
from tokenbucket.plugin.explain.limit_rules import Limit, causes_of
from tokenbucket.plugin.explain.pod_rules import POD_RULES, of_rejected_policies


@dataclass(frozen=True, slots=True)
class Rank:
    """One policy that selects the pod, and its place among them."""

    name: str
    wins: tuple[str, ...]
    """Directions."""
    why: str
    """Why it does not win, or does not apply."""


@dataclass(frozen=True, slots=True)
class LimitView:
    """The limit of one direction."""

    direction: str
    policy: str
    limit: str
    """With all defaults; as the agent reports it, or as declared."""
    state: State
    if_deleted: str
    """The outcome if the policy were deleted."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a pod has its limits."""

    evidence: Evidence
    causes: tuple[Cause, ...]
    limits: tuple[LimitView, ...]
    ranks: tuple[Rank, ...]

    @property
    def state(self) -> State:
        """Return the heaviest state of all causes."""
        return max((each.state for each in self.causes), key=lambda state: state.weight)


def explain(found: Evidence) -> Explanation:
    """Return the explanation of a pod. Pure: the same evidence gives the same explanation."""
    applying = [each.policy for each in found.policies if each.applies and each.policy]
    winners = {} if found.pod.ended else Winners(applying).of(found.subject)
    of_pod = next(filter(None, (rule(found) for rule in POD_RULES)), None)
    limits = {each: Limit(found, each, winners[each]) for each in Direction if each in winners}
    by_direction = {each: [of_pod] if of_pod else causes_of(limit) for each, limit in limits.items()}
    of_limits = [each for causes in by_direction.values() for each in causes]
    others = [*_invalid_annotations(found, winners), *of_rejected_policies(found)]
    causes = [of_pod] if of_pod else [*of_limits, *others]
    return Explanation(
        found,
        tuple(causes),
        tuple(_view(limit, by_direction[direction], applying) for direction, limit in limits.items()),
        tuple(_ranks(found, winners)),
    )


def _invalid_annotations(found: Evidence, winners: Mapping[Direction, Policy]) -> Iterable[Cause]:
    """Yield the causes of annotations that are not valid, in directions without a policy."""
    annotated = found.subject.annotated
    for direction, problem in (annotated.problems if annotated else {}).items():
        if direction not in winners:
            yield cause_of_reason(
                Reason.INVALID_ANNOTATION, problem, direction=direction.value, policy=ANNOTATIONS
            )


def _view(limit: Limit, causes: Iterable[Cause], applying: list[Policy]) -> LimitView:
    found, direction, policy = limit.evidence, limit.direction, limit.policy
    subject = replace(found.subject, annotated=None) if policy.name == ANNOTATIONS else found.subject
    others = Winners(each for each in applying if each is not policy).of(subject)
    following = others.get(direction)
    return LimitView(
        direction.value,
        policy.name,
        _in_words(limit),
        max((each.state for each in causes), key=lambda state: state.weight),
        f"policy {following.name}, {_declared(following, direction)}" if following else "no limit",
    )


def _in_words(limit: Limit) -> str:
    reported = (limit.live or {}).get("effective")
    entry = limit.entry
    if not reported and entry and entry.generation == limit.policy.generation:
        reported = entry.effective.get(limit.direction.value)
    return str(reported or _declared(limit.policy, limit.direction))


def _declared(policy: Policy, direction: Direction) -> str:
    return as_declared(policy.limits[direction], policy.mode)


def _ranks(found: Evidence, winners: Mapping[Direction, Policy]) -> Iterable[Rank]:
    """Yield the policies that select the pod: those that apply by their rank, then all others by name."""
    selecting = [each for each in found.policies if each.selects(found.pod.labels)]
    applying = sorted((each.policy for each in selecting if each.applies and each.policy), key=rank)
    for policy in applying:
        won = tuple(each.value for each in policy.limits if winners.get(each) is policy)
        lost = [each for each in policy.limits if each in winners and each.value not in won]
        why = "; ".join(_outranked(policy, each, winners[each]) for each in lost)
        yield Rank(policy.name, won, why)
    for view in selecting:
        if not view.applies:
            yield Rank(view.name, (), f"rejected: {view.rejected}" if view.rejected else "has the mode Off")


def _outranked(policy: Policy, direction: Direction, winner: Policy) -> str:
    return f"for {direction}, {winner.name} ranks higher: {advantage(winner, policy)}"


def document(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as the document of ``-o json``. Field names are part of the interface."""
    found = explanation.evidence
    report = found.report.report if found.report else None
    return {
        "version": 1,
        "namespace": found.pod.id.namespace,
        "pod": found.pod.id.name,
        "node": found.node_name,
        "state": explanation.state.value,
        "exitCode": int(explanation.state.exit_code),
        "causes": [{**asdict(each), "state": each.state.value} for each in explanation.causes],
        "limits": [
            {
                "direction": each.direction,
                "policy": each.policy,
                "limit": each.limit,
                "state": each.state.value,
                "ifDeleted": each.if_deleted,
            }
            for each in explanation.limits
        ],
        "policies": [
            {"name": each.name, "wins": list(each.wins), "why": each.why} for each in explanation.ranks
        ],
        "agent": {
            "version": report.agent.version,
            "pod": report.agent.pod,
            "lastSync": report.sync.last,
            "enforcement": report.enforcement,
            "attachments": dict(report.attachments),
            "foreignPrograms": list(report.foreign_programs),
        }
        if report
        else None,
        "live": found.live,
        "liveProblem": found.live_problem,
        "missingRights": list(found.gaps),
    }
