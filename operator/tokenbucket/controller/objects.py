"""What the controller takes from each object of the API: never raises, whatever the object says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tokenbucket.apiserver.objects import is_ready, metadata_of
from tokenbucket.core.api.node_report import NodeReport, parse_report
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.limits.bucket import as_declared
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import SpecError

MANAGER = "tokenbucket-controller"


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy, as far as its status needs it, and the status that it has."""

    head: PolicyHead
    changed_s: float
    """When somebody last wrote it, in seconds of Unix time; 0 where that is not known."""
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportObject:
    """A TokenBucketNode."""

    name: str
    uid: str
    report: NodeReport
    written: str
    """When the agent wrote it, RFC 3339."""
    conditions: Sequence[object]


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The pod of an agent."""

    name: str
    node: str
    ready: bool
    created_s: float
    """In seconds of Unix time."""


@dataclass(frozen=True, slots=True)
class NodeObject:
    """A node of the cluster."""

    name: str
    ready: bool


def read_policy(document: Mapping[str, Any]) -> PolicyObject:
    """A policy, whether it is valid or not."""
    metadata = metadata_of(document)
    refused, declared = _as_declared(document)
    return PolicyObject(
        PolicyHead(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=int(metadata.get("generation") or 0),
            refused=refused,
            mode=_mode(document),
            declared=declared,
        ),
        unix_time(_last_written(metadata, lambda entry: entry.get("subresource") != "status")),
        document.get("status") or {},
    )


def _last_written(metadata: Mapping[str, Any], wanted: Callable[[Mapping[str, Any]], bool]) -> str:
    """When one of the managers that are wanted last wrote the object, RFC 3339."""
    entries = filter(wanted, metadata.get("managedFields") or ())
    created = str(metadata.get("creationTimestamp") or "")
    return max([created, *(str(entry.get("time") or "") for entry in entries)])


def _mode(document: Mapping[str, Any]) -> Mode:
    word = (document.get("spec") or {}).get("mode")
    return Mode(word) if word in set(Mode) else Mode.ENFORCE


def unix_time(text: str) -> float:
    """Seconds, of a time in RFC 3339; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _as_declared(document: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What is wrong with a policy, or its limits in words, by direction."""
    try:
        policy = parse_policy({**document, "status": None})
    except SpecError as error:
        return "; ".join(str(problem) for problem in error.problems), {}
    limits = policy.limits.items()
    return "", {direction.value: as_declared(limit, policy.mode) for direction, limit in limits}


def read_report(document: Mapping[str, Any]) -> ReportObject:
    """An agent's report, of whatever version."""
    metadata = metadata_of(document)
    conditions = (document.get("status") or {}).get("conditions")
    return ReportObject(
        str(metadata.get("name") or ""),
        str(metadata.get("uid") or ""),
        parse_report(document),
        _last_written(metadata, lambda entry: entry.get("manager") != MANAGER),
        conditions if isinstance(conditions, list) else (),
    )


def read_agent(document: Mapping[str, Any]) -> AgentPod:
    """An agent's pod. One that is going is not ready."""
    metadata = metadata_of(document)
    ready = is_ready(document)
    going = metadata.get("deletionTimestamp") is not None
    node = (document.get("spec") or {}).get("nodeName")
    created_s = unix_time(str(metadata.get("creationTimestamp") or ""))
    return AgentPod(str(metadata.get("name") or ""), str(node or ""), ready and not going, created_s)


def read_node(document: Mapping[str, Any]) -> NodeObject:
    """A node of the cluster."""
    metadata = metadata_of(document)
    return NodeObject(str(metadata.get("name") or ""), is_ready(document))
