"""The tree of policies, their nodes, and the pods that are not limited as declared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenbucket.core.api.node_report import NodeReport, PodReport, PolicyReport
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.status.explanation import degrades
from tokenbucket.core.status.node_status import AGENT_READY
from tokenbucket.core.status.summary import in_number
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.explanation import Explanation
from tokenbucket.plugin.pod_states import PodState, states_of, worst_code
from tokenbucket.plugin.report_age import why_old

Document = Mapping[str, Any]
_NOT_LIMITING = {("Observe", "Observed"), ("Off", "Off"), ("Disabled", "Off")}
"""Modes of policies, with the reasons that they cause."""
_PROGRAMMED = ("degraded", "observed")
"""States of programmed pods."""
_COUNTS = ("programmed", "degraded", "observed", "failed", "pending", "overridden", "off", "exempt")


@dataclass(frozen=True, slots=True)
class NodeBranch:
    """One node with pods that a policy selects."""

    name: str
    entry: PolicyReport
    problem: str
    """Why the report of the node is not current; empty if it is."""
    pods: tuple[PodReport, ...]
    """Pods that are not limited as declared."""
    omitted: int
    """Number of pods that the report leaves out, over all policies."""

    @property
    def deviates(self) -> bool:
        """Return whether a current report shows pods that are not limited as declared."""
        shown = self.entry.rejected or self.pods or self.entry.pods.failed or self.entry.pods.degraded
        return bool(shown) and not self.problem

    @property
    def counts(self) -> str:
        """Return a text such as "3 pods: 2 programmed (1 degraded), 1 failed"."""
        pods = self.entry.pods
        texts = {name: f"{number} {name}" for name in _COUNTS if (number := getattr(pods, name))}
        if among := [texts.pop(name) for name in _PROGRAMMED if name in texts]:
            texts["programmed"] = f"{pods.programmed} programmed ({', '.join(among)})"
        return ": ".join(filter(None, (in_number(pods.matched, "pod"), ", ".join(texts.values()))))


@dataclass(frozen=True, slots=True)
class PolicyBranch:
    """One policy."""

    namespace: str
    name: str
    mode: str
    ready: str
    """Status of the condition Ready: True, False or Unknown."""
    reason: str
    message: str
    degraded: str
    """The message of the condition Degraded if it is True."""
    limits: Mapping[str, str]
    summary: str
    """Programmed and matched pods, such as "3/3"."""
    nodes: tuple[NodeBranch, ...]
    states: tuple[PodState, ...] = ()
    """The states of all pods if the reports of nodes cannot be read."""

    @property
    def exit_code(self) -> PluginExit:
        """Return whether the policy is enforced as declared. A known deviation precedes the unknown."""
        limits_nothing = (self.mode, self.reason) in _NOT_LIMITING
        is_failed = self.ready == "False" and not limits_nothing
        of_pods = worst_code(self.states)
        if is_failed or self.degraded or any(node.deviates for node in self.nodes):
            return PluginExit.DEVIATES
        if of_pods is PluginExit.DEVIATES:
            return of_pods
        if self.ready == "Unknown" or any(node.problem for node in self.nodes):
            return PluginExit.UNKNOWN
        if of_pods is PluginExit.UNKNOWN:
            return of_pods
        return PluginExit.NOT_LIMITED if limits_nothing else PluginExit.DONE


def branches(
    policies: Iterable[Document],
    reports: Iterable[Document],
    now: float,
    explanations: Sequence[Explanation] = (),
) -> tuple[PolicyBranch, ...]:
    """Return the branches of all policies, sorted by namespace and name.

    ``explanations`` are those of all pods if the reports cannot be read.
    """
    nodes = [(str((each.get("metadata") or {}).get("name")), each, parse_report(each)) for each in reports]
    found = [_branch(policy, nodes, now) for policy in policies]
    found = [replace(each, states=states_of(explanations, each.namespace, each.name)) for each in found]
    return tuple(sorted(found, key=lambda branch: (branch.namespace, branch.name)))


def _branch(policy: Document, nodes: Iterable[tuple[str, Document, NodeReport]], now: float) -> PolicyBranch:
    metadata, status = policy.get("metadata") or {}, policy.get("status") or {}
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    conditions = {each.get("type"): each for each in status.get("conditions") or ()}
    ready, degraded = conditions.get("Ready") or {}, conditions.get("Degraded") or {}
    is_current = ready.get("observedGeneration", metadata.get("generation")) == metadata.get("generation")
    found = [
        _node(node, report, entry, _problem(document, report, entry, metadata, now))
        for node, document, report in nodes
        for entry in report.policies
        if (entry.namespace, entry.name) == (namespace, name)
    ]
    return PolicyBranch(
        namespace,
        name,
        str((policy.get("spec") or {}).get("mode") or "Enforce"),
        str(ready.get("status") or "Unknown") if is_current else "Unknown",
        str(ready.get("reason") or "Pending") if is_current else "Updating",
        str(ready.get("message") or ready.get("reason") or "the controller has not written a status yet")
        if is_current
        else "the controller has not evaluated this generation yet",
        str(degraded.get("message") or "") if is_current and degraded.get("status") == "True" else "",
        status.get("effective") or {},
        str((status.get("pods") or {}).get("summary") or "0/0"),
        tuple(sorted(found, key=lambda branch: branch.name)),
    )


def _problem(
    document: Document, report: NodeReport, entry: PolicyReport, metadata: Document, now: float
) -> str:
    """Return why the report of a node is not current. The controller that judges it may be gone, too."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    ready: Document = next((each for each in conditions if each.get("type") == AGENT_READY), {})
    if ready.get("status", "True") != "True":
        return str(ready.get("message") or "no report")
    if not ready and not report.sync.last:
        return "no report"
    if old := why_old(report.sync, now):
        return old
    if (entry.uid, entry.generation) != (metadata.get("uid"), metadata.get("generation")):
        return f"reports generation {entry.generation} of {metadata.get('generation')}"
    return ""


def _node(name: str, report: NodeReport, entry: PolicyReport, problem: str) -> NodeBranch:
    pods = tuple(
        each
        for each in report.pods
        if (each.namespace, each.policy) == (entry.namespace, entry.name) and degrades(each.reason)
    )
    return NodeBranch(name, entry, problem, pods, report.pods_omitted if entry.reasons else 0)


def documents(found: Iterable[PolicyBranch]) -> list[dict[str, Any]]:
    """Return the branches as the documents of ``-o json``. Field names are part of the interface."""
    return [
        {
            "namespace": each.namespace,
            "name": each.name,
            "ready": each.ready,
            "reason": each.reason,
            "message": each.message,
            "degraded": each.degraded,
            "limits": dict(each.limits),
            "pods": each.summary,
            "nodes": [_node_document(node) for node in each.nodes],
            "podStates": [state.to_document() for state in each.states],
        }
        for each in found
    ]


def _node_document(node: NodeBranch) -> dict[str, Any]:
    pods = node.entry.pods
    return {
        "name": node.name,
        "problem": node.problem,
        "rejected": node.entry.rejected,
        "matched": pods.matched,
        **{name: getattr(pods, name) for name in _COUNTS},
        "effective": dict(node.entry.effective),
        "overriddenBy": [each.policy for each in node.entry.overridden_by],
        "pods": [
            {"name": each.name, "direction": each.direction, "reason": each.reason, "message": each.message}
            for each in node.pods
        ],
        "podsOmitted": node.omitted,
    }
