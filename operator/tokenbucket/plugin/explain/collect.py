"""Read the objects about one pod. A missing right leaves a gap; everything else is an error."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.enforcement import (
    NODE_LABEL,
    Enforcement,
    EnforcementConfig,
    parse_enforcement_config,
    parse_setting,
)
from tokenbucket.core.api.node_report import NodeReport
from tokenbucket.core.api.parse import parse_pod
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.api.pod import intended_node
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.status.node_status import AGENT_READY
from tokenbucket.plugin.connection import Connection
from tokenbucket.plugin.errors import DeniedError, MissingError
from tokenbucket.plugin.explain.evidence import AgentPod, Evidence, NodeView, ReportView
from tokenbucket.plugin.explain.policies import view
from tokenbucket.plugin.resources import AGENTS, CONFIG_MAPS, NODES, PODS, POLICIES, REPORTS, Kind

Document = Mapping[str, Any]
_VIRTUAL = (
    ("type", "virtual-kubelet"),
    ("kubernetes.io/role", "virtual-kubelet"),
    ("eks.amazonaws.com/compute-type", "fargate"),
)
_VIRTUAL_TAINT = "virtual-kubelet.io/provider"


class Collector:
    """Reads the objects about one pod, and only those that its state makes necessary."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gaps: list[str] = []

    def of(self, namespace: str, name: str, *, with_node: bool = False) -> Evidence:
        """Return the evidence about a pod. Raises MissingError, DeniedError or PluginError."""
        connection = self._connection
        with ThreadPoolExecutor(2) as pool:
            listed = pool.submit(connection.list, POLICIES, namespace)
            document = connection.get(PODS, name, namespace)
            policies = tuple(view(each) for each in listed.result())
        node_name = str((document.get("spec") or {}).get("nodeName") or "")
        report = _Reading(exists=False) if not node_name else self._get(REPORTS, node_name)
        parsed = parse_report(report.value)
        is_on = report.is_denied or (bool(report.value) and parsed.enforcement in {"", Mode.ENFORCE.value})
        node = self._get(NODES, node_name) if node_name and (with_node or not is_on) else _Reading()
        return Evidence(
            pod=parse_pod({**document, "kind": "Pod"}, annotations=True),
            node_name=node_name,
            created=str((document.get("metadata") or {}).get("creationTimestamp") or ""),
            policies=policies,
            node=_node(node.value) if node.value else None,
            node_exists=node.exists,
            report=ReportView(parsed, agent_ready(report.value)) if report.value else None,
            report_exists=report.exists,
            agents=self._agents(node_name, report.value) if node_name and not report.is_denied else None,
            enforcement=None if is_on or not report.value else self._enforcement(node.value, parsed),
            gaps=tuple(self._gaps),
            now=connection.now,
        )

    def _get(self, kind: Kind, name: str, namespace: str = "") -> _Reading:
        try:
            return _Reading(self._connection.get(kind, name, namespace))
        except MissingError:
            return _Reading(exists=False)
        except DeniedError as error:
            self._gaps.append(error.right)
            return _Reading()

    def _agents(self, node: str, report: Document | None) -> tuple[AgentPod, ...] | None:
        """Return the agent pods of a node. An agent that reports needs no look at its pod."""
        if report and agent_ready(report).get("status") == "True":
            return None
        namespace = parse_report(report).agent.release.partition("/")[0]
        try:
            found = self._connection.list(PODS, namespace, labelSelector=AGENTS)
        except DeniedError as error:
            self._gaps.append(error.right)
            return None
        return tuple(_agent(each) for each in found if node == _node_of(each))

    def _enforcement(self, node: Document | None, report: NodeReport) -> Enforcement | None:
        """Return the declared enforcement mode, if the node and both ConfigMaps can be read."""
        namespace, _, name = report.agent.release.partition("/")
        if not (node and name):
            return None
        config = self._get(CONFIG_MAPS, name, namespace)
        override = self._get(CONFIG_MAPS, f"{name}-override", namespace)
        if config.is_denied or override.is_denied:
            return None
        label = ((node.get("metadata") or {}).get("labels") or {}).get(NODE_LABEL)
        return Enforcement().update(
            _config(config.value), parse_setting(f"label {NODE_LABEL}", label), _config(override.value)
        )


@dataclass(frozen=True, slots=True)
class _Reading:
    """The result of a request for one object."""

    value: Document | None = None
    exists: bool = True
    """False only if the API server answered that it does not exist."""

    @property
    def is_denied(self) -> bool:
        return self.value is None and self.exists


def _config(document: Document | None) -> EnforcementConfig | None:
    if document is None:
        return None
    created = str((document.get("metadata") or {}).get("creationTimestamp") or "")
    return parse_enforcement_config(document.get("data") or {}, created=created)


def agent_ready(report: Document | None) -> Mapping[str, str]:
    """Return the condition of a TokenBucketNode; empty if the controller has not written it."""
    conditions = ((report or {}).get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == AGENT_READY), {})


def _node(document: Document) -> NodeView:
    metadata, status = document.get("metadata") or {}, document.get("status") or {}
    addresses = tuple(str(each.get("address")) for each in status.get("addresses") or ())
    return NodeView(str(metadata.get("name")), addresses, _why_no_agent(document))


def _why_no_agent(node: Document) -> str:
    labels = (node.get("metadata") or {}).get("labels") or {}
    taints = {taint.get("key") for taint in (node.get("spec") or {}).get("taints") or ()}
    named = next((f"{key}={value}" for key, value in _VIRTUAL if labels.get(key) == value), "")
    if named or _VIRTUAL_TAINT in taints:
        return f"virtual node ({named or _VIRTUAL_TAINT})"
    system = labels.get("kubernetes.io/os", "linux")
    return "" if system == "linux" else f"its system is {system}"


def _node_of(pod: Document) -> str:
    spec = pod.get("spec") or {}
    return str(spec.get("nodeName") or intended_node(spec))


def _agent(pod: Document) -> AgentPod:
    metadata, spec, status = (pod.get(name) or {} for name in ("metadata", "spec", "status"))
    conditions = {each.get("type"): each for each in status.get("conditions") or ()}
    ready = conditions.get("Ready", {}).get("status") == "True" and not metadata.get("deletionTimestamp")
    bound = bool(spec.get("nodeName"))
    problem = (
        ""
        if ready
        else str(conditions.get("PodScheduled" if not bound else "Ready", {}).get("message") or "")
    )
    return AgentPod(str(metadata.get("name")), bound, ready, _waiting(status) or problem)


def _waiting(status: Document) -> str:
    """Return why a container of the pod does not run, such as "CrashLoopBackOff"."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
    return ""
