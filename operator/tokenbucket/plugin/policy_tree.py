"""The tree of policies, their nodes, and the pods that are not limited as declared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.node_report import NodeReport, PodReport, PolicyReport
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.status.explanation import degrades
from tokenbucket.core.status.node_status import AGENT_READY
from tokenbucket.core.status.summary import in_number
from tokenbucket.plugin.exit_codes import PluginExit

Document = Mapping[str, Any]
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
    def counts(self) -> str:
        """Return a text such as "3 pods: 2 programmed, 1 failed"."""
        pods = self.entry.pods
        numbers = ((name, getattr(pods, name)) for name in _COUNTS)
        states = ", ".join(f"{number} {name}" for name, number in numbers if number)
        return f"{in_number(pods.matched, 'pod')}{f': {states}' if states else ''}"


@dataclass(frozen=True, slots=True)
class PolicyBranch:
    """One policy."""

    namespace: str
    name: str
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

    @property
    def exit_code(self) -> PluginExit:
        """Return whether the policy is enforced as declared."""
        if self.ready == "Unknown" or any(node.problem for node in self.nodes):
            return PluginExit.UNKNOWN
        return PluginExit.DEVIATES if self.ready != "True" or self.degraded else PluginExit.DONE


def branches(policies: Iterable[Document], reports: Iterable[Document]) -> tuple[PolicyBranch, ...]:
    """Return the branches of all policies, sorted by namespace and name."""
    nodes = [(str((each.get("metadata") or {}).get("name")), each, parse_report(each)) for each in reports]
    found = [_branch(policy, nodes) for policy in policies]
    return tuple(sorted(found, key=lambda branch: (branch.namespace, branch.name)))


def _branch(policy: Document, nodes: Iterable[tuple[str, Document, NodeReport]]) -> PolicyBranch:
    metadata, status = policy.get("metadata") or {}, policy.get("status") or {}
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    conditions = {each.get("type"): each for each in status.get("conditions") or ()}
    ready, degraded = conditions.get("Ready") or {}, conditions.get("Degraded") or {}
    is_current = ready.get("observedGeneration", metadata.get("generation")) == metadata.get("generation")
    found = [
        _node(node, document, report, entry, metadata)
        for node, document, report in nodes
        for entry in report.policies
        if (entry.namespace, entry.name) == (namespace, name)
    ]
    return PolicyBranch(
        namespace,
        name,
        str(ready.get("status") or "Unknown") if is_current else "Unknown",
        str(ready.get("reason") or "Pending") if is_current else "Updating",
        str(ready.get("message") or "")
        if is_current
        else "the controller has not judged this generation yet",
        str(degraded.get("message") or "") if degraded.get("status") == "True" else "",
        status.get("effective") or {},
        str((status.get("pods") or {}).get("summary") or "0/0"),
        tuple(sorted(found, key=lambda branch: branch.name)),
    )


def _node(
    name: str, document: Document, report: NodeReport, entry: PolicyReport, metadata: Document
) -> NodeBranch:
    conditions = (document.get("status") or {}).get("conditions") or ()
    ready: Document = next((each for each in conditions if each.get("type") == AGENT_READY), {})
    problem = str(ready.get("message") or "no report") if ready.get("status") == "False" else ""
    if not problem and (entry.uid, entry.generation) != (metadata.get("uid"), metadata.get("generation")):
        problem = f"reports generation {entry.generation} of {metadata.get('generation')}"
    if entry.rejected:
        problem = f"the agent rejects the policy: {entry.rejected}"
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
        }
        for each in found
    ]


def _node_document(node: NodeBranch) -> dict[str, Any]:
    pods = node.entry.pods
    return {
        "name": node.name,
        "problem": node.problem,
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
