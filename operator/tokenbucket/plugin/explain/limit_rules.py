"""The rules for one direction of a pod with a policy, on a node whose agent reports and enforces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.node_report import PolicyReport
from tokenbucket.core.api.policy import Direction, Mode, Policy, features_of
from tokenbucket.plugin.explain.cause import Cause, cause, cause_of_reason
from tokenbucket.plugin.explain.codes import Code
from tokenbucket.plugin.explain.evidence import Evidence
from tokenbucket.units import unix_time


@dataclass(frozen=True, slots=True)
class Limit:
    """The winning policy of one direction, with the report about it."""

    evidence: Evidence
    direction: Direction
    policy: Policy

    @property
    def entry(self) -> PolicyReport | None:
        """Return the entry of the policy in the report of the node."""
        if not self.evidence.report:
            return None
        if self.policy.name == ANNOTATIONS:
            return self.evidence.report.report.annotations
        named = (self.policy.namespace, self.policy.name)
        return next(
            (each for each in self.evidence.report.report.policies if (each.namespace, each.name) == named),
            None,
        )

    @property
    def live(self) -> Mapping[str, Any] | None:
        """Return the live state if it is that of the current version of the policy."""
        live = self.evidence.live_limit(self.direction.value)
        current = (self.policy.name, self.policy.generation)
        return live if live and (live.get("policy"), live.get("policyGeneration")) == current else None

    def cause(self, code: Code, detail: str = "") -> Cause:
        """Return a cause of this limit."""
        return cause(code, detail, direction=self.direction.value, policy=self.policy.name)


def unsupported(limit: Limit) -> list[Cause]:
    """Return the cause of a policy with parts that the agent does not know."""
    report = limit.evidence.report.report if limit.evidence.report else None
    known = frozenset(report.agent.features if report else ())
    missing = features_of(limit.policy) - known if known else frozenset()
    version = report.agent.version if report else ""
    detail = f"agent {version} does not support {', '.join(sorted(missing))}"
    return [limit.cause(Code.AGENT_TOO_OLD, detail)] if missing else []


def rejected(limit: Limit) -> list[Cause]:
    """Return the cause of a policy that the agent rejects."""
    entry = limit.entry
    return [limit.cause(Code.AGENT_REJECTS, entry.rejected)] if entry and entry.rejected else []


def reported(limit: Limit) -> list[Cause]:
    """Return the reasons that the agent names for this pod and direction: now, or in its last report."""
    found = limit.evidence
    now = {
        (str(each.get("reason")), str(each.get("message") or ""))
        for each in found.live_reasons
        if each.get("direction") == limit.direction.value
    }
    if found.live is None:
        name, policy = found.pod.id, limit.policy.name
        listed = found.report.report.pods if found.report else ()
        now = {
            (each.reason, each.message)
            for each in listed
            if (each.namespace, each.name, each.policy, each.direction)
            == (name.namespace, name.name, policy, limit.direction.value)
        }
        now |= {(str(each.get("reason")), str(each.get("message") or "")) for each in _named_by_policy(limit)}
    causes = [
        cause_of_reason(reason, message, direction=limit.direction.value, policy=limit.policy.name)
        for reason, message in sorted(now)
    ]
    return sorted(causes, key=lambda each: -each.state.weight)


def _named_by_policy(limit: Limit) -> list[Mapping[str, Any]]:
    """Return the problems of this pod in the status of the policy, for users who cannot read the report."""
    view = next((each for each in limit.evidence.policies if each.policy == limit.policy), None)
    if limit.evidence.report or not view:
        return []
    wanted = (limit.evidence.pod.id.name, limit.direction.value)
    return [each for each in view.problems if (each.get("pod"), each.get("direction")) == wanted]


def denied(limit: Limit) -> list[Cause]:
    """Return the cause of a policy that agents reject, for users who cannot read the report."""
    found = limit.evidence
    view = next((each for each in found.policies if each.policy is limit.policy), None)
    return [limit.cause(Code.AGENT_REJECTS, view.denied)] if view and view.denied and not found.report else []


def unreadable(limit: Limit) -> list[Cause]:
    """Return the cause of a report that the user may not read, if no live figures replace it."""
    found = limit.evidence
    return (
        [] if found.report or found.enforces_now else [limit.cause(Code.RIGHT_MISSING, "; ".join(found.gaps))]
    )


def outdated(limit: Limit) -> list[Cause]:
    """Return the cause of a report about an earlier version of the policy, or before the pod."""
    entry, found = limit.entry, limit.evidence
    if limit.live:
        return []
    if old := found.live_limit(limit.direction.value):
        detail = (
            f"the limit of policy {old.get('policy')}, generation {old.get('policyGeneration')}, is attached"
        )
        return [limit.cause(Code.UPDATING, detail)]
    if other := _still_applied(limit):
        detail = f"the agent still applies policy {other}, which is deleted or rejected"
        return [limit.cause(Code.UPDATING, detail)]
    if entry and (entry.uid, entry.generation) != (limit.policy.uid, limit.policy.generation):
        detail = f"generation {limit.policy.generation}; the agent reports {entry.generation}"
        return [limit.cause(Code.UPDATING, detail)]
    last = found.report.report.sync.last if found.report else ""
    if last and unix_time(found.created) >= unix_time(last):
        return [limit.cause(Code.PENDING, "the pod is newer than the last report of the node")]
    return []


def _still_applied(limit: Limit) -> str:
    """Return a policy that has precedence for the agent, and that does not apply any more; empty if none."""
    found, entry = limit.evidence, limit.entry
    applying = {str(each.policy) for each in found.policies if each.applies}
    overrides = entry.overridden_by if entry else ()
    gone = (each.policy for each in overrides if each.direction == limit.direction.value)
    return next((name for name in gone if name not in applying), "")


def incomplete(limit: Limit) -> list[Cause]:
    """Return the cause of a report without an entry of the policy, or without one of the pod."""
    entry, report = limit.entry, limit.evidence.report.report if limit.evidence.report else None
    if limit.live or not report:
        return []
    if not entry:
        if report.policies_omitted:
            return [limit.cause(Code.REPORT_INCOMPLETE, f"policies left out: {report.policies_omitted}")]
        return [limit.cause(Code.PENDING, "the agent does not report that the policy selects a pod")]
    if entry.reasons and report.pods_omitted:
        counts = ", ".join(f"{each.reason} on {each.pods}" for each in entry.reasons)
        return [limit.cause(Code.REPORT_INCOMPLETE, f"pods of this policy with reasons: {counts}")]
    return []


def not_active(limit: Limit) -> list[Cause]:
    """Return the cause of a limit that is not attached, without a reason."""
    if limit.live:
        return [] if limit.live.get("active") else [limit.cause(Code.PENDING, "not attached yet")]
    if limit.evidence.live is not None:
        return [limit.cause(Code.PENDING, "the agent has no limit for the pod yet")]
    entry = limit.entry
    if not entry:
        return []
    pods = entry.pods
    settled = pods.programmed + pods.failed + pods.overridden + pods.off
    if pods.matched <= settled:
        return []
    detail = f"{pods.matched - settled} of {pods.matched} pods of the policy on the node are not enforced yet"
    return [limit.cause(Code.PENDING, detail)]


def observed(limit: Limit) -> list[Cause]:
    """Return the cause of a policy that only counts."""
    return [limit.cause(Code.OBSERVED)] if limit.policy.mode is Mode.OBSERVE else []


LIMIT_RULES: tuple[Callable[[Limit], list[Cause]], ...] = (
    unsupported,
    rejected,
    reported,
    denied,
    unreadable,
    outdated,
    incomplete,
    not_active,
    observed,
)
"""In order of precedence: the first causes hide those of later rules."""


def causes_of(limit: Limit) -> list[Cause]:
    """Return the causes of the state of one direction."""
    for rule in LIMIT_RULES:
        if found := rule(limit):
            return found
    return [limit.cause(Code.ENFORCED)]
