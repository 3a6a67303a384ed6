"""Decide which addresses, and which network namespace, belong to a pod.

There are three sources: the status in the API server, the CNI result cache, and the kernel. Each can be
wrong. Statuses are outdated after a restart of the node. Results of lost sandboxes stay, with any file time.
The kernel has addresses without names of pods, and a pod may configure any address.

Two of the three must agree. A result that names a namespace of the kernel is the strongest evidence, because
only root can create a name in /run/netns. A result whose namespace has ended is outdated, and so is a status
that repeats its addresses. An address that several pods claim belongs to the pod with more sources. If the
evidence does not decide, the pod is not limited: the limit could be another pod's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

from tokenbucket.core.api.pod import Pod, PodId, Sandbox
from tokenbucket.core.planning.desired import Address

_PROOF = 3
"""Weight of the claim of a pod whose namespace is known: more than status and results together."""


class Names(Protocol):
    """The names of network namespaces in /run/netns."""

    def number(self, name: str) -> int | None:
        """Return the number of the namespace with a name, or ``None`` if there is none."""

    def is_gone(self, name: str) -> bool:
        """Return whether a name does not exist, although other names of namespaces do."""


Holders = Callable[[Iterable[Address]], AbstractSet[int | None]]
"""Returns the numbers of the namespaces that have any of these addresses, ``None`` for the node's."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The pods with the addresses that are theirs, and the namespaces that are proven."""

    pods: tuple[Pod, ...]
    namespaces: Mapping[PodId, int]


def identify(pods: Iterable[Pod], names: Names, holders: Holders) -> Identified:
    """Weigh the evidence about all pods of the node."""
    pods = tuple(pods)
    namespaces = _namespaces([pod for pod in pods if pod.sandboxes and not pod.ended], names, holders)
    claims = [_claims(pod, namespaces.get(pod.id), names) for pod in pods]
    most: dict[Address, int] = {}
    for claimed in claims:
        for address, weight in claimed.items():
            most[address] = max(weight, most.get(address, 0))
    return Identified(
        tuple(_with_own(pod, claimed, most) for pod, claimed in zip(pods, claims, strict=True)), namespaces
    )


def _with_own(pod: Pod, claimed: Mapping[Address, int], most: Mapping[Address, int]) -> Pod:
    """Return a pod with the claimed addresses that no other pod has more evidence for."""
    own = frozenset(each for each, weight in claimed.items() if weight == most[each])
    return pod if own == pod.addresses else replace(pod, addresses=own)


def _namespaces(pods: Sequence[Pod], names: Names, holders: Holders) -> dict[PodId, int]:
    """Return the namespaces that results name. Two pods in one namespace: the one whose status agrees."""
    proven = ((pod.id, _namespace(pod, names, holders)) for pod in pods)
    found = {pod: nsid for pod, nsid in proven if nsid is not None}
    several = {nsid for nsid, count in Counter(found.values()).items() if count > 1}
    if not several:
        return found
    in_status = {pod.id: holders(pod.addresses) for pod in pods if found.get(pod.id) in several}
    agreeing = Counter(found[pod] for pod, held in in_status.items() if held == {found[pod]})
    return {
        pod: nsid
        for pod, nsid in found.items()
        if nsid not in several or (agreeing[nsid] == 1 and in_status[pod] == {nsid})
    }


def _namespace(pod: Pod, names: Names, holders: Holders) -> int | None:
    """Return the number of the namespace that is proven to be the pod's."""
    named = {each: names.number(each.namespace) for each in pod.sandboxes if each.namespace}
    nsids = {nsid for nsid in named.values() if nsid is not None}
    if not nsids:
        return None
    confirmed = {nsid for each, nsid in named.items() if nsid is not None and nsid in holders(each.addresses)}
    in_status = holders(pod.addresses)
    if len(nsids) == 1:
        return None if in_status and not (in_status | confirmed) & nsids else min(nsids)
    for decided in (nsids & in_status, confirmed):
        if len(decided) == 1:
            return min(decided)
    return None


def _claims(pod: Pod, namespace: int | None, names: Names) -> Mapping[Address, int]:
    """Return the addresses that may be the pod's, with the weight of the evidence."""
    if not pod.sandboxes:
        return dict.fromkeys(pod.addresses, 1)
    if namespace is not None:
        proven = (each for each in pod.sandboxes if names.number(each.namespace) == namespace)
        addresses = frozenset().union(*(each.addresses for each in proven)) or pod.addresses
        return dict.fromkeys(addresses, _PROOF)
    gone = [each for each in pod.sandboxes if each.namespace and names.is_gone(each.namespace)]
    left = [each for each in pod.sandboxes if each not in gone]
    outdated = _addresses(gone) - _addresses(left)
    status = pod.addresses - outdated
    agreeing = [each for each in left if each.addresses & status]
    return Counter(status) + Counter(_addresses(agreeing or left))


def _addresses(sandboxes: Iterable[Sandbox]) -> frozenset[Address]:
    return frozenset().union(*(each.addresses for each in sandboxes))
