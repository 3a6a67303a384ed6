"""Read and write the report of an agent: the status of a TokenBucketNode.

Agents and controllers of different versions read the same reports, so parsing never fails. It ignores unknown
fields, and uses the default for missing fields and for values of a wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

_LONGEST_MESSAGE = 256
T = TypeVar("T", int, str, bool)


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The number of pods with one reason, and an example message."""

    reason: str
    pods: int
    message: str


@dataclass(frozen=True, slots=True)
class Override:
    """Another policy that has precedence for one direction, and the number of pods."""

    policy: str
    direction: str
    pods: int


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """One policy on one node. Counts are pods. crds/tokenbucket.yaml describes the fields."""

    namespace: str
    name: str
    uid: str
    generation: int
    refused: str = ""
    matched: int = 0
    programmed: int = 0
    degraded: int = 0
    observed: int = 0
    failed: int = 0
    pending: int = 0
    overridden: int = 0
    overridden_by: tuple[Override, ...] = ()
    off: int = 0
    effective: Mapping[str, str] = field(default_factory=dict)
    action: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[ReasonCount, ...] = ()


@dataclass(frozen=True, slots=True)
class PodReport:
    """A limit that is not enforced as declared."""

    namespace: str
    name: str
    policy: str
    direction: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Everything that an agent reports."""

    agent_version: str = ""
    agent_pod: str = ""
    kernel: str = ""
    fq: bool = False
    enforcement: str = ""
    problem: str = ""
    clean: bool = False
    limits: int = 0
    policies: tuple[PolicyReport, ...] = ()
    pods: tuple[PodReport, ...] = ()
    pods_omitted: int = 0


_COUNTS = ("matched", "programmed", "degraded", "observed", "failed", "pending", "overridden", "off")
_POD_FIELDS = ("namespace", "name", "policy", "direction", "reason", "message")


def to_document(report: NodeReport) -> dict[str, Any]:
    """Return the status of a TokenBucketNode, without empty texts and lists."""
    agent = _without_empty({"version": report.agent_version, "pod": report.agent_pod})
    return _without_empty(
        {
            "agent": agent,
            "kernel": report.kernel,
            "fq": report.fq,
            "enforcement": report.enforcement,
            "problem": _cut(report.problem),
            "clean": report.clean,
            "limits": report.limits,
            "policies": [_policy_document(policy) for policy in report.policies],
            "pods": [_pod_document(pod) for pod in report.pods],
            "podsOmitted": report.pods_omitted,
        }
    )


def _policy_document(policy: PolicyReport) -> dict[str, Any]:
    return _without_empty(
        {
            "namespace": policy.namespace,
            "name": policy.name,
            "uid": policy.uid,
            "generation": policy.generation,
            "refused": _cut(policy.refused),
            **{name: getattr(policy, name) for name in _COUNTS},
            "overriddenBy": [
                {"policy": each.policy, "direction": each.direction, "pods": each.pods}
                for each in policy.overridden_by
            ],
            "effective": dict(policy.effective),
            "action": dict(policy.action),
            "reasons": [
                _without_empty({"reason": each.reason, "pods": each.pods, "message": _cut(each.message)})
                for each in policy.reasons
            ],
        }
    )


def _pod_document(pod: PodReport) -> dict[str, Any]:
    return _without_empty({name: getattr(pod, name) for name in _POD_FIELDS} | {"message": _cut(pod.message)})


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value not in ("", [], {})}


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."


def parse_report(document: object) -> NodeReport:
    """Read a TokenBucketNode of any version. Raises no exception."""
    status = _mapping(_mapping(document).get("status"))
    agent = _mapping(status.get("agent"))
    return NodeReport(
        agent_version=_get(agent, "version", ""),
        agent_pod=_get(agent, "pod", ""),
        kernel=_get(status, "kernel", ""),
        fq=_get(status, "fq", False),
        enforcement=_get(status, "enforcement", ""),
        problem=_get(status, "problem", ""),
        clean=_get(status, "clean", False),
        limits=_number(status, "limits"),
        policies=tuple(_policy(each) for each in _items(status, "policies")),
        pods=tuple(
            PodReport(*(_get(each, name, "") for name in _POD_FIELDS)) for each in _items(status, "pods")
        ),
        pods_omitted=_number(status, "podsOmitted"),
    )


def _policy(given: Mapping[str, Any]) -> PolicyReport:
    return PolicyReport(
        namespace=_get(given, "namespace", ""),
        name=_get(given, "name", ""),
        uid=_get(given, "uid", ""),
        generation=_number(given, "generation"),
        refused=_get(given, "refused", ""),
        **{name: _number(given, name) for name in _COUNTS},
        overridden_by=tuple(
            Override(_get(each, "policy", ""), _get(each, "direction", ""), _number(each, "pods"))
            for each in _items(given, "overriddenBy")
        ),
        effective=_texts(given.get("effective")),
        action=_texts(given.get("action")),
        reasons=tuple(
            ReasonCount(_get(each, "reason", ""), _number(each, "pods"), _get(each, "message", ""))
            for each in _items(given, "reasons")
        ),
    )


def _get(given: Mapping[str, Any], name: str, default: T) -> T:
    value = given.get(name)
    return value if type(value) is type(default) else default


def _number(given: Mapping[str, Any], name: str) -> int:
    return max(0, _get(given, name, 0))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = given.get(name)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> dict[str, str]:
    return {key: text for key, text in _mapping(value).items() if isinstance(text, str)}
