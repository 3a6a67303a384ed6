"""In which network namespaces pods are limited before a pass, and when a pod may be limited elsewhere.

A pod is found by its address, and a pod that may configure its network can give its address to another. So a
limit that is in force has a home: the namespace to which its interfaces lead, as the kernel has it. Wherever
the pod's address is found, the limit stays at home.

Only a new declaration moves it: one that has no address of the last one. That one source knows more addresses
of a pod than another, or fewer, is nothing new. What is newly declared has no home, and keeps nobody out of
where it was; so two pods that were taken for each other can change places.

What was declared last is remembered by the agent alone. To one that has just started nothing is new: it can
not tell a mistake that was mended from an address that was given away, and lets every limit stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.limits.slot import Subject
from tokenbucket.core.planning.desired import Address


class Placements:
    """Namespaces by number, and whose limits are there."""

    def __init__(self) -> None:
        self._nsids: dict[Subject, set[int]] = defaultdict(set)
        self._pods: dict[int, set[Subject]] = defaultdict(set)

    def add(self, pod: Subject, nsid: int) -> None:
        """Record that a limit of the pod is in this namespace."""
        self._nsids[pod].add(nsid)
        self._pods[nsid].add(pod)

    def of(self, pod: Subject) -> int | None:
        """Return the one namespace in which a pod is limited; ``None`` where there is none, or more."""
        nsids = self._nsids.get(pod, set())
        return min(nsids) if len(nsids) == 1 else None

    def admit(self, pod: Subject, nsid: int) -> bool:
        """Whether a pod whose address is there may be limited there: at home or, without a home, where nobody
        else is.
        """
        return self.of(pod) in {None, nsid} and pod in self._pods.get(nsid, {pod})


@dataclass(slots=True)
class Declarations:
    """The addresses that were declared last, by pod."""

    _addresses: dict[PodId, frozenset[Address]] = field(default_factory=dict)

    def unchanged(self, pods: Iterable[Pod]) -> set[PodId]:
        """Return the pods that are declared as they were, or for the first time."""
        return {
            pod.id
            for pod in pods
            if not pod.ended
            and (pod.id not in self._addresses or not self._addresses[pod.id].isdisjoint(pod.addresses))
        }

    def passed(self, pods: Iterable[Pod], missing: AbstractSet[Subject]) -> None:
        """Record a run. A pod whose limit it missed to place may still be where the last one had it."""
        self._addresses = {
            pod.id: self._addresses.get(pod.id, pod.addresses) if pod.id in missing else pod.addresses
            for pod in pods
            if not pod.ended
        }
