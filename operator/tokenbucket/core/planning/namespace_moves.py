"""Decide whether a limit stays in its network namespace or moves to another one.

The agent finds a pod by its address, and a pod that can configure its network can give its address to
another pod. An attached limit therefore has a placement: the namespace to which its interfaces lead. The
limit stays there, even if the agent finds the address of the pod in another namespace.

Only a new declaration moves a limit: a declaration without any address of the previous one. A source that
knows more or fewer addresses of a pod than another source is no new declaration. A pod with a new declaration
has no placement, and does not block other pods from its old namespace. Two pods whose addresses were mixed up
can therefore be corrected.

Only the memory of the agent contains the previous declarations. A restarted agent cannot distinguish a
corrected document from an address that a pod gave away. It keeps every limit in its namespace.
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
    """The namespaces (nsid) in which pods are limited."""

    def __init__(self) -> None:
        self._nsids: dict[Subject, set[int]] = defaultdict(set)
        self._pods: dict[int, set[Subject]] = defaultdict(set)

    def add(self, pod: Subject, nsid: int) -> None:
        """Record that a limit of the pod is in this namespace."""
        self._nsids[pod].add(nsid)
        self._pods[nsid].add(pod)

    def of(self, pod: Subject) -> int | None:
        """Return the namespace in which a pod is limited, or ``None`` if there is none or more than one."""
        nsids = self._nsids.get(pod, set())
        return min(nsids) if len(nsids) == 1 else None

    def admit(self, pod: Subject, nsid: int) -> bool:
        """Return whether a pod with an address in this namespace may be limited there: in its own placement,
        or, if it has none, in a namespace without limits of other pods.
        """
        return self.of(pod) in {None, nsid} and pod in self._pods.get(nsid, {pod})


@dataclass(slots=True)
class Declarations:
    """The previously declared addresses of each pod."""

    _addresses: dict[PodId, frozenset[Address]] = field(default_factory=dict)

    def unchanged(self, pods: Iterable[Pod]) -> set[PodId]:
        """Return the pods whose declaration is unchanged, or is the first."""
        return {
            pod.id
            for pod in pods
            if not pod.ended
            and (pod.id not in self._addresses or not self._addresses[pod.id].isdisjoint(pod.addresses))
        }

    def record(self, pods: Iterable[Pod], missing: AbstractSet[Subject]) -> None:
        """Record a run. Keep the previous addresses of pods in ``missing``: their limits did not move."""
        self._addresses = {
            pod.id: self._addresses.get(pod.id, pod.addresses) if pod.id in missing else pod.addresses
            for pod in pods
            if not pod.ended
        }
