"""In which network namespaces pods were limited before a pass."""

from __future__ import annotations

from collections import defaultdict

from tokenbucket.core.slot import Subject


class Homes:
    """Namespaces by number, and whose limits are there."""

    def __init__(self) -> None:
        self._nsids: dict[Subject, set[int]] = defaultdict(set)
        self._pods: dict[int, set[Subject]] = defaultdict(set)

    def add(self, pod: Subject, nsid: int) -> None:
        """A limit of the pod is there."""
        self._nsids[pod].add(nsid)
        self._pods[nsid].add(pod)

    def of(self, pod: Subject) -> int | None:
        """The one namespace in which a pod is limited; ``None`` where there is none, or more."""
        nsids = self._nsids.get(pod, set())
        return min(nsids) if len(nsids) == 1 else None

    def is_anothers(self, nsid: int, pod: Subject) -> bool:
        """Whether another pod is limited there, and this one is not."""
        return pod not in self._pods.get(nsid, {pod})
