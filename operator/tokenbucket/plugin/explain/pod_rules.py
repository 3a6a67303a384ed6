"""The rules that find the cause of the state of a whole pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.enforcement import ModeSource
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.explain.cause import Cause, cause, cause_of_reason
from tokenbucket.plugin.explain.codes import Code
from tokenbucket.plugin.explain.evidence import AgentPod, Evidence
from tokenbucket.plugin.explain.policies import nearest_miss
from tokenbucket.plugin.report_age import why_old
from tokenbucket.units import unix_time


def finished(found: Evidence) -> Cause | None:
    """Return the cause of a pod that has ended."""
    return cause(Code.FINISHED) if found.pod.ended else None


def without_policy(found: Evidence) -> Cause | None:
    """Return the cause of a pod to which no policy applies."""
    if _has_policy(found) or found.subject.annotated:
        return None
    selecting = [each for each in found.policies if each.selects(found.pod.labels)]
    if rejected := of_rejected_policies(found):
        return rejected[0]
    if selecting:
        return cause(Code.POLICY_OFF, f"mode Off: {', '.join(each.name for each in selecting)}")
    if found.pod.annotated:
        return cause(Code.ANNOTATIONS_NOT_READ)
    unreadable = [each for each in found.policies if each.selector is None]
    miss = nearest_miss(found.policies, found.pod.labels)
    if unreadable and not miss:
        detail = f"the selector is invalid: {unreadable[0].rejected}"
        return cause(Code.POLICY_INVALID, detail, policy=unreadable[0].name)
    return cause(Code.NO_MATCH, miss.explain(found.pod.labels)) if miss else cause(Code.NO_POLICY)


def with_unreadable_policy(found: Evidence) -> Cause | None:
    """Return the cause of a pod with a policy of a newer version. It may have precedence over all others."""
    newer = (each for each in found.policies if each.is_unreadable)
    policy = next((each for each in newer if not each.selector or each.selects(found.pod.labels)), None)
    return cause(Code.COMMAND_TOO_OLD, policy.rejected, policy=policy.name) if policy else None


def of_rejected_policies(found: Evidence) -> list[Cause]:
    """Return the causes of policies that select the pod and are never enforced."""
    return [
        cause(
            Code.PROTECTED_NAMESPACE if each.protected else Code.POLICY_INVALID,
            each.rejected,
            policy=each.name,
        )
        for each in found.policies
        if each.rejected and each.selects(found.pod.labels)
    ]


def host_network(found: Evidence) -> Cause | None:
    """Return the cause of a pod that shares the network of its node."""
    return cause_of_reason(Reason.HOST_NETWORK) if found.pod.host_network else None


def not_scheduled(found: Evidence) -> Cause | None:
    """Return the cause of a pod without a node."""
    return None if found.node_name else cause(Code.NOT_SCHEDULED)


def without_node(found: Evidence) -> Cause | None:
    """Return the cause of a pod whose node is gone, or runs no agent by its nature."""
    if not found.node_exists:
        return cause(Code.NODE_MISSING, f"node {found.node_name}")
    why = found.node.why_no_agent if found.node else ""
    return cause(Code.NODE_WITHOUT_AGENTS, why) if why and not found.report else None


def without_report(found: Evidence) -> Cause | None:
    """Return the cause of a pod on a node from which no agent has ever reported."""
    if found.report_exists:
        return None
    if found.agents is None:
        return cause(Code.NO_AGENT, f"no TokenBucketNode {found.node_name}; agent pods cannot be read")
    return _of_agent_pods(found.agents, Code.NO_AGENT, f"no TokenBucketNode {found.node_name}")


def with_old_report(found: Evidence) -> Cause | None:
    """Return the cause of a pod on a node whose agent does not report any more."""
    if not found.report:
        return None
    condition, sync = found.report.condition, found.report.report.sync
    if condition.get("status", "True") == "True" and not why_old(sync, found.now):
        return None
    old = f"last report {found.now - unix_time(sync.last):.0f} s ago" if sync.last else ""
    detail = "; ".join(
        filter(None, (condition.get("message", "") if condition.get("status") != "True" else "", old))
    )
    if found.agents is not None:
        return _of_agent_pods(found.agents, Code.AGENT_GONE, detail)
    named = {"NoPod": Code.AGENT_GONE, "NotReady": Code.AGENT_NOT_READY}
    return cause(named.get(condition.get("reason", ""), Code.AGENT_SILENT), detail)


def _of_agent_pods(agents: Iterable[AgentPod], without: Code, detail: str) -> Cause:
    """Return the cause that the agent pods of a node show. ``without`` applies if there is none."""
    agents = sorted(agents, key=lambda agent: (agent.ready, agent.bound))
    if not agents:
        return cause(without, detail)
    first = agents[0]
    code = (
        Code.AGENT_SILENT
        if first.ready
        else Code.AGENT_NOT_READY
        if first.bound
        else Code.AGENT_NOT_SCHEDULED
    )
    name = "" if first.name in detail else f"pod {first.name}"
    return cause(code, "; ".join(filter(None, (name, first.problem, detail))))


def turned_off(found: Evidence) -> Cause | None:
    """Return the cause of a node whose enforcement mode is not Enforce, or on which a cleanup ran."""
    codes = {Mode.OFF.value: Code.ENFORCEMENT_OFF, Mode.OBSERVE.value: Code.ENFORCEMENT_OBSERVE}
    if not found.report:
        code = codes.get(str((found.live or {}).get("enforcement")))
        return cause(code, _place(found)) if code else None
    report, declared = found.report.report, found.enforcement
    if report.clean:
        return cause(Code.CLEANED_UP, report.problem)
    if declared and report.enforcement and declared.mode != report.enforcement:
        detail = f"the agent reports the mode {report.enforcement}, {_place(found)} sets {declared.mode}"
        return cause(Code.UPDATING, detail)
    code = codes.get(report.enforcement)
    return cause(code, _place(found)) if code else None


def _place(found: Evidence) -> str:
    """Return the place that sets the enforcement mode, as far as the rights permit."""
    declared, report = found.enforcement, found.report.report if found.report else None
    release = report.agent.release if report else ""
    match declared.decided_by if declared else None:
        case ModeSource.LABEL:
            return f"label tokenbucket.dev/enforcement of node {found.node_name}"
        case ModeSource.OVERRIDE:
            since = f" (since {declared.overridden_since})" if declared and declared.overridden_since else ""
            return f"ConfigMap {release}-override{since}; delete it"
        case ModeSource.RELEASE:
            return f"ConfigMap {release}, from the chart value enforcement"
    return (report.problem if report else "") or "the node label or a ConfigMap sets the mode"


def unread_annotations(found: Evidence) -> Cause | None:
    """Return the cause of an annotated pod if nothing shows whether its agent reads annotations."""
    if not found.pod.annotated or found.reads_annotations is not None or _has_policy(found):
        return None
    return cause(Code.RIGHT_MISSING, "; ".join(found.gaps), policy=ANNOTATIONS)


def _has_policy(found: Evidence) -> bool:
    return any(each.applies and each.selects(found.pod.labels) for each in found.policies)


Rule = Callable[[Evidence], Cause | None]
POD_RULES: tuple[Rule, ...] = (
    finished,
    with_unreadable_policy,
    without_policy,
    host_network,
    not_scheduled,
    without_node,
    without_report,
    with_old_report,
    turned_off,
    unread_annotations,
)
"""In order of precedence: the first cause hides the later ones."""
