"""What the controller takes from each object of the API: never raises, whatever the object says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tokenbucket.core.parse import parse_policy
from tokenbucket.core.report import NodeReport, parse_report
from tokenbucket.core.status import PolicyHead
from tokenbucket.errors import SpecError


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy, as far as its status needs it, and the status that it has."""

    head: PolicyHead
    created_s: float
    """When, in seconds of Unix time; 0 where that is not known."""
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportObject:
    """A TokenBucketNode."""

    name: str
    report: NodeReport
    written: str
    """When, RFC 3339."""


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The pod of an agent."""

    node: str
    ready: bool


def read_policy(document: Mapping[str, Any]) -> PolicyObject:
    """A policy, whether it is valid or not."""
    metadata = document.get("metadata") or {}
    return PolicyObject(
        PolicyHead(
            namespace=str(metadata.get("namespace") or ""),
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=int(metadata.get("generation") or 0),
            refused=_problems(document),
        ),
        _unix_time(metadata.get("creationTimestamp")),
        document.get("status") or {},
    )


def _unix_time(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _problems(document: Mapping[str, Any]) -> str:
    try:
        parse_policy({**document, "status": None})
    except SpecError as error:
        return "; ".join(str(problem) for problem in error.problems)
    return ""


def read_report(document: Mapping[str, Any]) -> ReportObject:
    """An agent's report, of whatever version."""
    metadata = document.get("metadata") or {}
    times = [str(entry.get("time") or "") for entry in metadata.get("managedFields") or ()]
    written = max([*times, str(metadata.get("creationTimestamp") or "")])
    return ReportObject(str(metadata.get("name") or ""), parse_report(document), written)


def read_agent(document: Mapping[str, Any]) -> AgentPod:
    """An agent's pod. One that is going is not ready."""
    metadata, status = document.get("metadata") or {}, document.get("status") or {}
    ready = any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
    going = metadata.get("deletionTimestamp") is not None
    return AgentPod(str((document.get("spec") or {}).get("nodeName") or ""), ready and not going)


def read_name(document: Mapping[str, Any]) -> str:
    """The name of a node."""
    return str((document.get("metadata") or {}).get("name") or "")
