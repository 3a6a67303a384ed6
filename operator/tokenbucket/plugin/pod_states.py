"""Find the states of many pods, where no report of a node counts them by policy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.parse import parse_pod
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.cause import Cause
from tokenbucket.plugin.explain.codes import State
from tokenbucket.plugin.explain.evidence import Evidence, ReportView
from tokenbucket.plugin.explain.explanation import Explanation, explain
from tokenbucket.plugin.explain.policies import PolicyView

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PodState:
    """The state of the limits that one policy, or the annotations, give to one pod."""

    namespace: str
    name: str
    node: str
    state: State
    causes: tuple[Cause, ...]

    def to_document(self) -> dict[str, Any]:
        """Return the state as a part of the document of ``-o json``."""
        causes = [
            {"direction": each.direction, "code": each.code, "detail": each.detail} for each in self.causes
        ]
        return {
            "namespace": self.namespace,
            "pod": self.name,
            "node": self.node,
            "state": self.state.value,
            "causes": causes,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What the API and the agents show about all pods."""

    policies: Mapping[str, tuple[PolicyView, ...]]
    """By namespace."""
    reports: Mapping[str, ReportView] | None
    """By node. ``None`` if they cannot be read."""
    live: Mapping[str, Document]
    """The live answers by uid of the pod."""
    gaps: tuple[str, ...]
    now: float

    def explain(self, pod: Document) -> Explanation:
        """Return the explanation of a pod."""
        metadata, node = pod["metadata"], str((pod.get("spec") or {}).get("nodeName") or "")
        return explain(
            Evidence(
                pod=parse_pod({**pod, "kind": "Pod"}, annotations=True),
                node_name=node,
                created=str(metadata.get("creationTimestamp") or ""),
                policies=self.policies.get(metadata["namespace"], ()),
                report=(self.reports or {}).get(node),
                report_exists=self.reports is None or node in self.reports,
                live=self.live.get(str(metadata.get("uid"))),
                gaps=self.gaps,
                now=self.now,
            )
        )


def states_of(explanations: Iterable[Explanation], namespace: str, policy: str) -> tuple[PodState, ...]:
    """Return the states of the pods that have a limit of this policy. All namespaces if it is empty."""
    found = (each for each in explanations if namespace in {"", each.evidence.pod.id.namespace})
    return tuple(state for each in found if (state := _state(each, policy)))


def annotated(explanations: Iterable[Explanation]) -> tuple[PodState, ...]:
    """Return the states of the pods whose annotations an agent reads, or may read: the state is unknown."""
    found = (each for each in explanations if each.evidence.reads_annotations is not False)
    return states_of(found, "", ANNOTATIONS)


def worst_code(states: Iterable[PodState]) -> PluginExit:
    """Return the exit status of the worst state, DONE without any."""
    worst = max((each.state for each in states), key=lambda state: state.weight, default=State.ENFORCED)
    return worst.exit_code


def _state(found: Explanation, policy: str) -> PodState | None:
    pod, limits = found.evidence.pod.id, [each for each in found.limits if each.policy == policy]
    directions = {each.direction for each in limits}
    causes = tuple(
        each
        for each in found.causes
        if each.policy == policy or (limits and not each.policy and each.direction in {"", *directions})
    )
    states = [*(each.state for each in limits), *(each.state for each in causes)]
    worst = max(states, key=lambda state: state.weight, default=None)
    return PodState(pod.namespace, pod.name, found.evidence.node_name, worst, causes) if worst else None
