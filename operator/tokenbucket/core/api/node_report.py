"""The report of an agent, and its form as the status of a TokenBucketNode."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

MOST_PODS = 1 << 16
"""Maximum number of pods of a node in a report, as in its schema."""
LONGEST_PERIOD_S = 300
"""Longest interval of the regular reports of an agent. No report can claim a longer one."""
_LONGEST_MESSAGE = 256
_POLICIES, _POLICIES_BYTES = 2048, 3 << 18
"""Maximum number of entries about policies, as in the schema, and of their bytes: etcd rejects 1.5 MiB."""
_SMALL = 32
"""Number of entries that are never too large."""


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


POD_STATES = tuple(item.name for item in fields(PodCounts))
_COUNTS = operator.attrgetter(*POD_STATES)


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

    @property
    def silent_after_s(self) -> float:
        """Return the age of a report in seconds after which the agent is silent: 2.5 periods."""
        return 2.5 * min(self.period_s, LONGEST_PERIOD_S)


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
    annotations: PolicyReport | None = None
    """The pods with annotations that declare limits. ``None`` if there are none."""
    pods: tuple[PodReport, ...] = ()
    pods_omitted: int = 0


POD_FIELDS = ("namespace", "name", "policy", "direction", "reason", "message")


def entries_that_fit(policies: Sequence[PolicyReport]) -> Sequence[PolicyReport]:
    """Return the first entries, as many as a report has room for."""
    size = 0
    for number, policy in enumerate(policies[:_POLICIES] if len(policies) > _SMALL else ()):
        size += len(json.dumps(_policy_document(policy)))
        if size > _POLICIES_BYTES:
            return policies[:number]
    return policies[:_POLICIES]


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
            "annotations": _annotations_document(report.annotations),
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
            **dict(zip(POD_STATES, _COUNTS(policy.pods), strict=True)),
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


def _annotations_document(report: PolicyReport | None) -> dict[str, Any]:
    if not report:
        return {}
    document = _policy_document(report)
    return {name: document[name] for name in (*POD_STATES, "reasons") if name in document}


def _pod_document(pod: PodReport) -> dict[str, Any]:
    return _without_empty({name: getattr(pod, name) for name in POD_FIELDS} | {"message": _cut(pod.message)})


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value not in ("", [], {})}


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."
