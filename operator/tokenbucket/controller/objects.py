"""Parse the API objects that the controller reads. Parsing never raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tokenbucket.apiserver.resources import is_ready, metadata_of
from tokenbucket.core.api.node_report import parse_report
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.limits.bucket import as_declared
from tokenbucket.core.status.summary import PolicyHead, ReportedNode
from tokenbucket.errors import SpecError

MANAGER = "tokenbucket-controller"


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy and its current status."""

    head: PolicyHead
    changed_s: float
    """Unix time of the last write in seconds, or 0 if unknown."""
    status: Mapping[str, Any]

    @property
    def ready_reason(self) -> str:
        """Return the reason of the condition Ready, or an empty text."""
        conditions = self.status.get("conditions") or ()
        return next((item["reason"] for item in conditions if item["type"] == "Ready"), "")


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The pod of an agent."""

    name: str
    node: str
    ready: bool
    created_s: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class NodeObject:
    """A node of the cluster."""

    name: str
    ready: bool


def read_policy(document: Mapping[str, Any]) -> PolicyObject:
    """Return a policy, valid or invalid."""
    metadata = metadata_of(document)
    rejected, declared = _as_declared(document)
    return PolicyObject(
        PolicyHead(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=int(metadata.get("generation") or 0),
            rejected=rejected,
            mode=_mode(document),
            declared=declared,
        ),
        unix_time(_last_written(metadata, lambda entry: entry.get("subresource") != "status")),
        document.get("status") or {},
    )


def _last_written(metadata: Mapping[str, Any], wanted: Callable[[Mapping[str, Any]], bool]) -> str:
    """Return the RFC 3339 time of the last write by the selected managers."""
    entries = filter(wanted, metadata.get("managedFields") or ())
    created = str(metadata.get("creationTimestamp") or "")
    return max([created, *(str(entry.get("time") or "") for entry in entries)])


def _mode(document: Mapping[str, Any]) -> Mode:
    word = (document.get("spec") or {}).get("mode")
    return Mode(word) if word in set(Mode) else Mode.ENFORCE


def unix_time(text: str) -> float:
    """Return the Unix time in seconds of an RFC 3339 text, or 0 if the text is invalid."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _as_declared(document: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the errors of a policy, and the descriptions of its limits by direction."""
    try:
        policy = parse_policy({**document, "status": None})
    except SpecError as error:
        return "; ".join(str(problem) for problem in error.problems), {}
    limits = policy.limits.items()
    return "", {direction.value: as_declared(limit, policy.mode) for direction, limit in limits}


def read_report(document: Mapping[str, Any]) -> ReportedNode:
    """Return the report of an agent of any version."""
    metadata = metadata_of(document)
    conditions = (document.get("status") or {}).get("conditions")
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
    node = (document.get("spec") or {}).get("nodeName")
    created_s = unix_time(str(metadata.get("creationTimestamp") or ""))
    return AgentPod(str(metadata.get("name") or ""), str(node or ""), ready and not going, created_s)


def read_node(document: Mapping[str, Any]) -> NodeObject:
    """Return a node of the cluster."""
    metadata = metadata_of(document)
    return NodeObject(str(metadata.get("name") or ""), is_ready(document))
