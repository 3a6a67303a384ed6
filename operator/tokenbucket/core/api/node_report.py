"""Read and write the report of an agent: the status of a TokenBucketNode.

Agents and controllers of different versions read the same reports, so parsing never fails. It ignores unknown
fields, and uses the default for missing fields and for values of a wrong type.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, TypeVar

MOST_PODS = 1 << 16
"""Maximum number of pods of a node in a report, as in its schema."""
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
class PodCounts:
    """The selected pods of a policy by state. crds/tokenbucket.yaml describes the fields."""

    matched: int = 0
    programmed: int = 0
    degraded: int = 0
    observed: int = 0
    failed: int = 0
    pending: int = 0
    overridden: int = 0
    off: int = 0
    exempt: int = 0

    @classmethod
    def sum(cls, counts: Iterable[PodCounts]) -> Self:
        """Return the sums of each state."""
        return cls(*map(sum, zip(*map(_COUNTS, counts), strict=True)))


_STATES = tuple(item.name for item in fields(PodCounts))
_COUNTS = operator.attrgetter(*_STATES)


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """One policy on one node."""

    namespace: str
    name: str
    uid: str
    generation: int
    rejected: str = ""
    pods: PodCounts = PodCounts()
    overridden_by: tuple[Override, ...] = ()
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
class AgentInfo:
    """The agent that reports."""

    version: str = ""
    pod: str = ""
    release: str = ""
    """Namespace and name of the release; empty in reports of earlier versions."""
    features: tuple[str, ...] = ()
    """Parts of the API that the agent supports. Empty if it does not report them."""


@dataclass(frozen=True, slots=True)
class WatchContact:
    """The last list, event or bookmark that an agent received for one kind of object."""

    resource: str
    last_contact: str
    """RFC 3339 time of the agent's clock. Empty if there was none."""


@dataclass(frozen=True, slots=True)
class Sync:
    """How recent a report is."""

    last: str = ""
    """RFC 3339 time at which the agent wrote the report. Empty for an agent that writes only changes."""
    period_s: int = 0
    """The agent writes the report at least this often."""
    policies_version: int = -1
    """Newest resource version of policies that the last reconcile run used."""
    watches: tuple[WatchContact, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Everything that an agent reports."""

    agent: AgentInfo = AgentInfo()
    sync: Sync = Sync()
    kernel: str = ""
    fq: bool = False
    enforcement: str = ""
    problem: str = ""
    clean: bool = False
    limits: int = 0
    attachments: Mapping[str, int] = field(default_factory=dict)
    foreign_programs: tuple[str, ...] = ()
    policies: tuple[PolicyReport, ...] = ()
    policies_omitted: int = 0
    pods: tuple[PodReport, ...] = ()
    pods_omitted: int = 0


_POD_FIELDS = ("namespace", "name", "policy", "direction", "reason", "message")


def to_document(report: NodeReport) -> dict[str, Any]:
    """Return the status of a TokenBucketNode, without empty texts and lists."""
    return _without_empty(
        {
            "agent": _without_empty(asdict(report.agent) | {"features": list(report.agent.features)}),
            **sync_document(report.sync),
            "kernel": report.kernel,
            "fq": report.fq,
            "enforcement": report.enforcement,
            "problem": _cut(report.problem),
            "clean": report.clean,
            "limits": report.limits,
            "attachments": dict(report.attachments),
            "foreignPrograms": [_cut(text) for text in report.foreign_programs],
            "policies": [_policy_document(policy) for policy in report.policies],
            "policiesOmitted": report.policies_omitted,
            "pods": [_pod_document(pod) for pod in report.pods],
            "podsOmitted": report.pods_omitted,
        }
    )


def sync_document(sync: Sync) -> dict[str, Any]:
    """Return the fields that change with each write. Empty if the agent writes only changes."""
    if not sync.last:
        return {}
    return {
        "lastSync": sync.last,
        "syncPeriodSeconds": sync.period_s,
        "policiesVersion": max(0, sync.policies_version),
        "watches": [
            _without_empty({"resource": watch.resource, "lastContact": watch.last_contact})
            for watch in sync.watches
        ],
    }


def _policy_document(policy: PolicyReport) -> dict[str, Any]:
    return _without_empty(
        {
            "namespace": policy.namespace,
            "name": policy.name,
            "uid": policy.uid,
            "generation": policy.generation,
            "rejected": _cut(policy.rejected),
            **dict(zip(_STATES, _COUNTS(policy.pods), strict=True)),
            "overriddenBy": [
                {"policy": other.policy, "direction": other.direction, "pods": other.pods}
                for other in policy.overridden_by
            ],
            "effective": dict(policy.effective),
            "action": dict(policy.action),
            "reasons": [
                _without_empty({"reason": count.reason, "pods": count.pods, "message": _cut(count.message)})
                for count in policy.reasons
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
    agent, attachments = _mapping(status.get("agent")), _mapping(status.get("attachments"))
    return NodeReport(
        agent=AgentInfo(
            _get(agent, "version", ""),
            _get(agent, "pod", ""),
            _get(agent, "release", ""),
            _names(agent.get("features")),
        ),
        sync=_sync(status),
        kernel=_get(status, "kernel", ""),
        fq=_get(status, "fq", False),
        enforcement=_get(status, "enforcement", ""),
        problem=_get(status, "problem", ""),
        clean=_get(status, "clean", False),
        limits=_number(status, "limits"),
        attachments={name: count for name, count in attachments.items() if type(count) is int},
        foreign_programs=_names(status.get("foreignPrograms")),
        policies=tuple(_policy(policy) for policy in _items(status, "policies")),
        policies_omitted=_number(status, "policiesOmitted"),
        pods=tuple(
            PodReport(*(_get(pod, name, "") for name in _POD_FIELDS)) for pod in _items(status, "pods")
        ),
        pods_omitted=_number(status, "podsOmitted"),
    )


def _sync(status: Mapping[str, Any]) -> Sync:
    watches = tuple(
        WatchContact(_get(item, "resource", ""), _get(item, "lastContact", ""))
        for item in _items(status, "watches")
    )
    last, period_s = _get(status, "lastSync", ""), _number(status, "syncPeriodSeconds")
    return Sync(last, period_s, _get(status, "policiesVersion", -1), watches)


def _names(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _policy(given: Mapping[str, Any]) -> PolicyReport:
    return PolicyReport(
        namespace=_get(given, "namespace", ""),
        name=_get(given, "name", ""),
        uid=_get(given, "uid", ""),
        generation=_number(given, "generation"),
        rejected=_get(given, "rejected", ""),
        pods=PodCounts(*(_count(given, name) for name in _STATES)),
        overridden_by=tuple(
            Override(_get(item, "policy", ""), _get(item, "direction", ""), _count(item, "pods"))
            for item in _items(given, "overriddenBy")
        ),
        effective=_texts(given.get("effective")),
        action=_texts(given.get("action")),
        reasons=tuple(
            ReasonCount(_get(item, "reason", ""), _count(item, "pods"), _get(item, "message", ""))
            for item in _items(given, "reasons")
        ),
    )


def _get(given: Mapping[str, Any], name: str, default: T) -> T:
    value = given.get(name)
    return value if type(value) is type(default) else default


def _count(given: Mapping[str, Any], name: str) -> int:
    """Return a number of pods. Whatever a node reports, the sums must fit the status of a policy."""
    return min(_number(given, name), MOST_PODS)


def _number(given: Mapping[str, Any], name: str) -> int:
    return max(0, _get(given, name, 0))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = given.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> dict[str, str]:
    return {key: text for key, text in _mapping(value).items() if isinstance(text, str)}
