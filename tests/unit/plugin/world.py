"""A cluster in the API: one pod, and the report of its agent."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

from tests.unit.fake_api import FakeApi
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.core.api.node_report import AgentInfo, NodeReport, Sync, to_document
from tokenbucket.core.api.parse import parse_pod, parse_policy
from tokenbucket.core.api.policy import FEATURES, Direction, Mode
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.attachment import End, Interface
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.pod_limits import Deviation, PodInterfaces
from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.core.status.node_status import (
    DesiredInput,
    NodeState,
    Outcome,
    annotation_report,
    pods_not_programmed,
    policy_reports,
)
from tokenbucket.plugin.errors import DeniedError, MissingError
from tokenbucket.plugin.resources import Kind

Document = dict[str, Any]
RELEASE = "tokenbucket-system/tokenbucket"
AGENT_LABELS = {"app.kubernetes.io/part-of": "tokenbucket", "app.kubernetes.io/component": "agent"}
HOURS_AGO = "2026-11-01T00:00:00Z"
LIMIT = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}
EFFECTIVE_PODS = PodInterfaces({End.HOST: frozenset({Interface(7)})})


def rfc3339(ago_s: float = 0.0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago_s))


def policy(name: str = "web", **spec: Any) -> Document:
    """Return a policy that selects the pod."""
    return {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"{name}-uid",
            "generation": 1,
            "creationTimestamp": HOURS_AGO,
        },
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": LIMIT, **spec},
    }


def condition(kind: str, status: str, reason: str = "", message: str = "", generation: int = 1) -> Document:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
    }


@dataclass
class World:
    """Objects to change before they are stored. The report follows from them, as the agent computes it."""

    pod: Document = field(
        default_factory=lambda: {
            "kind": "Pod",
            "metadata": {
                "name": "web-1",
                "namespace": "shop",
                "uid": "web-1-uid",
                "labels": {"app": "web"},
                "creationTimestamp": HOURS_AGO,
            },
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}]},
        }
    )
    policies: list[Document] = field(default_factory=lambda: [policy()])
    seen_policies: list[Document] | None = None
    """The policies that the agent has used, if they differ."""
    node: Document | None = field(
        default_factory=lambda: {
            "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
        }
    )
    agent: Document | None = field(
        default_factory=lambda: {
            "metadata": {
                "name": "agent-x",
                "namespace": "tokenbucket-system",
                "labels": AGENT_LABELS,
            },
            "spec": {"nodeName": "n1"},
            "status": {"conditions": [condition("Ready", "True")]},
        }
    )
    reason: Reason | None = None
    """A reason for the ingress limit of the pod."""
    directions: tuple[Direction, ...] = (Direction.INGRESS,)
    """Directions to which the reason applies."""
    enforcement: Mode = Mode.ENFORCE
    config: Document | None = field(default_factory=lambda: {"enforcement": "Enforce"})
    override: Document | None = None
    report_fields: Document = field(default_factory=dict)
    """Fields of the status that differ."""
    agent_ready: Document | None = field(default_factory=lambda: condition("AgentReady", "True", "Ready"))
    synced_s_ago: float = 1.0
    has_report: bool = True
    reads_annotations: bool = False

    def status(self) -> Document:
        """Return the status of the TokenBucketNode."""
        seen = self.policies if self.seen_policies is None else self.seen_policies
        policies = tuple(parse_policy({**each, "status": None}) for each in seen)
        pods = (parse_pod(self.pod, annotations=self.reads_annotations),)
        target = desired(
            policies, pods, lambda _: EFFECTIVE_PODS, Capabilities(), NodeSettings(self.enforcement)
        )
        deviations, active = list(target.deviations), dict(target.active)
        for direction in self.directions if self.reason else ():
            key = SlotKey(pods[0].id, direction)
            deviations.append(Deviation(key, self.reason, f"eth0: message of {self.reason}; act"))
            if self.reason.effect in {Effect.FAILED, Effect.PENDING}:
                active.pop(key, None)
        inputs = DesiredInput(policies, pods, self.enforcement)
        state = NodeState(inputs, Outcome(deviations=tuple(deviations), active=active))
        report = NodeReport(
            agent=AgentInfo("0.2.0", "agent-x", RELEASE, FEATURES),
            sync=Sync(rfc3339(self.synced_s_ago), 20, 100),
            kernel="6.12.1",
            fq=True,
            enforcement=self.enforcement.value,
            limits=len(active),
            attachments={"clsact/egress": 1},
            foreign_programs=("cil_from_contai (tcx) at the ingress of 1 interface",),
            policies=policy_reports(state),
            annotations=annotation_report(state),
            pods=tuple(pods_not_programmed(state)),
        )
        conditions = {"conditions": [self.agent_ready]} if self.agent_ready else {}
        return {**to_document(report), **conditions, **self.report_fields}

    @property
    def objects(self) -> list[tuple[str, Document]]:
        """Return all objects with the plurals of their kinds."""
        found = [(POLICIES.plural, each) for each in self.policies]
        found += [(PODS.plural, each) for each in (self.pod, self.agent) if each]
        found += [(NODES.plural, self.node)] if self.node else []
        if self.has_report:
            found.append((REPORTS.plural, {"metadata": {"name": "n1"}, "status": self.status()}))
        for name, data in (("tokenbucket", self.config), ("tokenbucket-override", self.override)):
            metadata = {"name": name, "namespace": "tokenbucket-system", "creationTimestamp": HOURS_AGO}
            found += [(CONFIG_MAPS.plural, {"metadata": metadata, "data": data})] if data is not None else []
        return found

    def store(self, api: FakeApi) -> None:
        """Put all objects into the API server."""
        api.kinds |= {PODS, POLICIES, REPORTS, NODES, CONFIG_MAPS}
        kinds = {kind.plural: kind for kind in (PODS, POLICIES, REPORTS, NODES, CONFIG_MAPS)}
        for plural, document in self.objects:
            content = copy.deepcopy(document)
            metadata = content.pop("metadata")
            api.put(
                kinds[plural], metadata["name"], metadata.get("namespace", ""), metadata=metadata, **content
            )


@dataclass
class Objects:
    """The objects of a world as the plugin reads them, without HTTP: the table of causes is long."""

    world: World
    denied: frozenset[str] = frozenset()
    """Plurals that the user may not read."""
    now: float = field(default_factory=time.time)

    def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        found = [each for each in self._of(kind, namespace) if each["metadata"]["name"] == name]
        if not found:
            raise MissingError(f"{kind} {name} not found")
        return copy.deepcopy(found[0])

    def list(self, kind: Kind, namespace: str = "", **selectors: str) -> list[Document]:
        wanted = dict(pair.split("=") for pair in selectors.get("labelSelector", "").split(",") if pair)
        return [
            copy.deepcopy(each)
            for each in self._of(kind, namespace)
            if wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]

    def _of(self, kind: Kind, namespace: str) -> list[Document]:
        if kind.plural in self.denied:
            raise DeniedError(f"read {kind}")
        found = [each for plural, each in self.world.objects if plural == kind.plural]
        return [each for each in found if namespace in {"", each["metadata"].get("namespace", "")}]
