"""Parse the API objects that the controller reads. Parsing never raises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenbucket.apiserver.resources import is_ready, metadata_of, version_of
from tokenbucket.apiserver.store import Store
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.api.pod import intended_node
from tokenbucket.core.api.policy import Mode, Policy, features_of
from tokenbucket.core.api.protection import protection_error
from tokenbucket.core.limits.bucket import as_declared
from tokenbucket.core.status.summary import PolicyHead, ReportedNode
from tokenbucket.errors import SpecError
from tokenbucket.units import unix_time

MANAGER = "tokenbucket-controller"


class ReadyCondition(NamedTuple):
    """The condition Ready of a policy."""

    status: str = "Unknown"
    reason: str = "Unknown"


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy and its current status."""

    head: PolicyHead
    version: int
    """Resource version."""
    status: Mapping[str, Any]

    @property
    def ready(self) -> ReadyCondition:
        """Return the condition Ready, unknown without one."""
        conditions = self.status.get("conditions") or ()
        found = (item for item in conditions if item["type"] == "Ready")
        return next((ReadyCondition(item["status"], item["reason"]) for item in found), ReadyCondition())

    @property
    def known_ready(self) -> bool:
        """Return whether the status reports this generation as ready."""
        return self.status.get("observedGeneration") == self.head.generation and is_ready(
            {"status": self.status}
        )


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The pod of an agent."""

    name: str
    node: str
    ready: bool
    created_s: float
    """Unix time in seconds."""
    address: str = ""
    """Address of the pod, and so of its node. Empty until the pod has one."""


@dataclass(frozen=True, slots=True)
class NodeObject:
    """A node of the cluster."""

    name: str
    ready: bool
    created_s: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of all watched objects."""

    policies: Store[PolicyObject]
    reports: Store[ReportedNode]
    agents: Store[AgentPod]
    nodes: Store[NodeObject]


def read_policy(document: Mapping[str, Any], protected: Collection[str] = ()) -> PolicyObject:
    """Return a policy, valid or invalid. One in a protected namespace needs a label.

    Agents reject the same policies, but report only those of namespaces with pods on their nodes.
    """
    metadata = metadata_of(document)
    policy, invalid = _parse(document)
    return PolicyObject(
        PolicyHead(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=int(metadata.get("generation") or 0),
            rejected=protection_error(metadata, protected) or invalid,
            mode=policy.mode if policy else Mode.ENFORCE,
            declared=_as_declared(policy) if policy else {},
            selector=policy.selector if policy else None,
            features=features_of(policy) if policy else frozenset(),
        ),
        version_of(metadata),
        document.get("status") or {},
    )


def _last_written(metadata: Mapping[str, Any], wanted: Callable[[Mapping[str, Any]], bool]) -> str:
    """Return the RFC 3339 time of the last write by the selected managers."""
    entries = filter(wanted, metadata.get("managedFields") or ())
    created = str(metadata.get("creationTimestamp") or "")
    return max([created, *(str(entry.get("time") or "") for entry in entries)])


def _parse(document: Mapping[str, Any]) -> tuple[Policy | None, str]:
    """Return a policy, or its errors."""
    try:
        return parse_policy({**document, "status": None}), ""
    except SpecError as error:
        return None, "; ".join(str(problem) for problem in error.problems)


def _as_declared(policy: Policy) -> dict[str, str]:
    """Return the descriptions of the limits by direction."""
    return {direction.value: as_declared(limit, policy.mode) for direction, limit in policy.limits.items()}


def read_report(document: Mapping[str, Any]) -> ReportedNode:
    """Return the report of an agent of any version."""
    metadata = metadata_of(document)
    status = document.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    return ReportedNode(
        str(metadata.get("name") or ""),
        parse_report(document),
        _last_written(metadata, lambda entry: entry.get("manager") != MANAGER),
        str(metadata.get("uid") or ""),
        conditions if isinstance(conditions, list) else (),
    )


def read_agent(document: Mapping[str, Any]) -> AgentPod:
    """Return an agent pod. A terminating pod is not ready."""
    metadata = metadata_of(document)
    ready = is_ready(document)
    going = metadata.get("deletionTimestamp") is not None
    spec = document.get("spec") or {}
    node = spec.get("nodeName") or intended_node(spec)
    address = (document.get("status") or {}).get("podIP")
    return AgentPod(
        str(metadata.get("name") or ""),
        str(node or ""),
        ready and not going,
        _created_s(metadata),
        str(address or ""),
    )


def read_node(document: Mapping[str, Any]) -> NodeObject:
    """Return a node of the cluster."""
    metadata = metadata_of(document)
    return NodeObject(str(metadata.get("name") or ""), is_ready(document), _created_s(metadata))


def _created_s(metadata: Mapping[str, Any]) -> float:
    return unix_time(str(metadata.get("creationTimestamp") or ""))
