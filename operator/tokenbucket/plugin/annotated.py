"""Find the workloads and pods whose annotations declare limits, and how to select their pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenbucket.core.api.annotations import CALICO, read_annotations
from tokenbucket.core.api.pod import Annotated
from tokenbucket.core.api.policy import Direction, Limit

Document = Mapping[str, Any]
_OF_ONE_GENERATION = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "rollouts-pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels that controllers set, and that differ between the pods of a workload."""
_SELECTING = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
"""Kinds whose selector stays the same for all pods."""
NO_EQUIVALENT = {
    **{f"{CALICO}{each}Peakrate": "limits have no peak rate" for each in Direction},
    **{f"{CALICO}{each}Minburst": "limits have no peak rate" for each in Direction},
    **{f"{CALICO}{each}MaxConnections": "connections are not limited" for each in Direction},
    f"{CALICO}dscp": "only packets that exceed a limit are marked (exceedAction: Mark)",
    "bandwidth.cilium.io/priority": "pods have no priorities",
    "k8s.aliyun.com/qos-class": "pods have no classes",
    **{f"k8s.aliyun.com/{each}-bandwidth": "its unit is bytes per second" for each in Direction},
}
"""Annotations of other limiters that no policy can express, and why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A workload, or a pod without one."""

    namespace: str
    kind: str
    name: str
    labels: Mapping[str, str]
    """The labels of its pods."""
    selector: Mapping[str, Any]
    """Selects its pods, with the fields of ``spec.podSelector``."""
    annotations: Mapping[str, str]
    annotated: Annotated | None
    """The limits and problems of the annotations."""
    host_network: bool

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} ({self.kind})"

    @property
    def limits(self) -> Mapping[Direction, Limit]:
        """Return the limits of the annotations."""
        return self.annotated.policy.limits if self.annotated else {}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workloads by uid, as documents with a kind, and pods."""

    workloads: Mapping[str, Document]
    pods: Sequence[Document]

    @classmethod
    def of(cls, pods: Iterable[Document], workloads: Iterable[Document]) -> Cluster:
        """Return the cluster. Pods that have ended are left out."""
        running = [pod for pod in pods if _get(pod, "status").get("phase") not in ("Succeeded", "Failed")]
        return cls({str(_get(each, "metadata").get("uid")): each for each in workloads}, running)

    def subjects(self) -> list[tuple[Subject, tuple[Subject, ...]]]:
        """Return each workload, and each pod without one, with its pods."""
        pods: dict[str, list[Subject]] = {}
        alone: list[tuple[Subject, list[Subject]]] = []
        for pod in self.pods:
            subject = _subject(pod, "Pod", pod, _stable)
            owner = self._root(pod)
            if owner is pod:
                same = next((members for first, members in alone if _alike(first, subject)), None)
                if same is None:
                    alone.append((subject, [subject]))
                else:
                    same.append(subject)
            else:
                pods.setdefault(str(_get(owner, "metadata").get("uid")), []).append(subject)
        roots = ((uid, each) for uid, each in self.workloads.items() if self._root(each) is each)
        found = [(_workload(each), tuple(pods.get(uid, ()))) for uid, each in roots]
        return sorted(
            [*found, *((subject, tuple(same)) for subject, same in alone)],
            key=lambda item: (item[0].namespace, item[0].name, item[0].kind),
        )

    def _root(self, document: Document) -> Document:
        """Return the workload at the end of the chain of owners, or the document itself."""
        for owner in _get(document, "metadata").get("ownerReferences") or ():
            above = self.workloads.get(str(owner.get("uid")))
            if owner.get("controller") and above is not None:
                return self._root(above)
        return document


def _alike(one: Subject, other: Subject) -> bool:
    """Return whether the same policy fits two pods without a workload."""
    return (one.namespace, one.selector, one.limits) == (other.namespace, other.selector, other.limits)


def _workload(document: Document) -> Subject:
    kind, spec = str(document.get("kind")), _get(document, "spec")
    if kind == "CronJob":
        spec = _get(_get(spec, "jobTemplate"), "spec")
    selector = spec.get("selector") if kind in _SELECTING else None
    return _subject(document, kind, _get(spec, "template"), lambda labels: selector or _stable(labels))


def _subject(document: Document, kind: str, pod: Document, selector: Any) -> Subject:  # noqa: ANN401
    metadata, of_pods = _get(document, "metadata"), _get(pod, "metadata")
    labels, annotations = _get(of_pods, "labels"), _get(of_pods, "annotations")
    namespace = str(metadata.get("namespace") or "default")
    return Subject(
        namespace,
        kind,
        str(metadata.get("name")),
        labels,
        selector(labels),
        annotations,
        read_annotations(namespace, annotations),
        _get(pod, "spec").get("hostNetwork") is True,
    )


def _stable(labels: Mapping[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in sorted(labels.items()) if key not in _OF_ONE_GENERATION}
    return {"matchLabels": kept} if kept else {}


def _get(document: Document, name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def without_equivalent(subject: Subject) -> Iterator[str]:
    """Yield the annotations of a workload that no policy expresses, with the reason."""
    for name in sorted(subject.annotations.keys() & NO_EQUIVALENT.keys()):
        yield f"{name}: {NO_EQUIVALENT[name]}"
