"""Location of a pod's limits: the interfaces that lead to its addresses, or that have its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import DataPlane
from tokenbucket.core.planning.desired import PodInterfaces, Search
from tokenbucket.core.planning.hook import End, Interface, Mechanism
from tokenbucket.core.planning.placement import Placements
from tokenbucket.core.planning.reasons import Degradation, Reason
from tokenbucket.errors import KernelError
from tokenbucket.netlink.queues import Root
from tokenbucket.node.location import AddressLocation, LocationKind
from tokenbucket.node.view import View

_NOT_NAMED = "network namespace: has no path in /run/netns or /proc; excess packets are dropped"
_NOT_LOCATED = {
    LocationKind.UNKNOWN: (
        Reason.NO_INTERFACE,
        "pod: no veth of this node leads to its address; check that the pod runs here",
    ),
    LocationKind.HOST: (
        Reason.HOST_NETWORK,
        "pod: has an address of the node; exclude it from spec.podSelector",
    ),
    LocationKind.AMBIGUOUS: (
        Reason.ADDRESS_CONFLICT,
        "pod: its addresses are in several network namespaces, or in another pod's; check both pods",
    ),
}


@dataclass(frozen=True, slots=True)
class Locator:
    """Finds pods' interfaces in the view. Belongs to one round of the reconcile loop."""

    view: View
    placements: Placements
    data_plane: DataPlane

    def locate(self, search: Search) -> PodInterfaces:
        """Return the interfaces of a pod, or the reason why there are none."""
        where = self.view.interfaces_of(*search.addresses)
        if where.place is LocationKind.NAMESPACE and self.placements.admit(search.pod, where.nsids[0]):
            return self._behind(where, search)
        place = LocationKind.AMBIGUOUS if where.place is LocationKind.NAMESPACE else where.place
        reason, message = _NOT_LOCATED[place]
        # Keep a placed limit: otherwise a pod with NET_ADMIN could remove its limit, or another pod's.
        nsid = self.placements.of(search.pod)
        where = AddressLocation(LocationKind.UNKNOWN) if nsid is None else self.view.leading_to(nsid)
        if not where.veths:
            return PodInterfaces({}, reason, message)
        message = f"{message}; the limit stays on its last interface"
        return replace(self._behind(where, search), reason=reason, message=message)

    def _behind(self, where: AddressLocation, search: Search) -> PodInterfaces:
        """Return the interfaces that lead to a namespace."""
        if not where.veths:
            return PodInterfaces({}, Reason.NO_INTERFACE, _describe_others(where))
        ends = {End.HOST: frozenset(Interface(link.ifindex) for link in where.veths)}
        no_queue: dict[Direction, Degradation | None] = {}
        if Direction.INGRESS in search.waits:
            no_queue[Direction.INGRESS] = self._foreign_root(ends[End.HOST], self.view.roots)
        if search.enter:
            ends[End.POD], no_queue[Direction.EGRESS] = self._pod_side(where)
        return PodInterfaces(ends, no_queue={direction: why for direction, why in no_queue.items() if why})

    def _pod_side(self, where: AddressLocation) -> tuple[frozenset[Interface], Degradation | None]:
        """Return the pod-side interfaces, and why they cannot delay packets."""
        try:
            found = self.view.pod_namespaces.enter(where.nsids[0])
        except KernelError as error:
            why_not = Degradation(Reason.NO_NAMESPACE, f"{error}; excess packets are dropped")
            return frozenset(), why_not
        if not found:
            return frozenset(), Degradation(Reason.NO_NAMESPACE, _NOT_NAMED)
        inode = found.namespace.inode
        ends = frozenset(Interface(link.peer_ifindex, inode) for link in where.veths if link.peer_ifindex)
        filtered = (each for each in ends if self.data_plane.mechanism(each) is Mechanism.CLSACT)
        for interface in filtered:
            if there := found.in_the_way(interface.ifindex):
                message = f"{self.view.name_of(interface)}: {there}; excess packets are dropped"
                return ends, Degradation(Reason.NO_FILTER_IN_POD, message)
        return ends, self._foreign_root(ends, found.roots)

    def _foreign_root(self, ends: Iterable[Interface], roots: Mapping[int, Root]) -> Degradation | None:
        """Return why one of the ends cannot have tokenbucket's root qdisc. ``roots`` are those present."""
        for interface in ends:
            root = roots.get(interface.ifindex)
            if root and not root.ours:
                message = f"{self.view.name_of(interface)}: a foreign {root}; excess packets are dropped"
                return Degradation(Reason.FOREIGN_QDISC, message)
        return None


def _describe_others(where: AddressLocation) -> str:
    others = ", ".join(f"{link.name} ({link.kind})" for link in where.others)
    if others:
        return f"pod: has the interface {others}, which is not a veth; exclude the pod or change its network"
    return "pod: has no veth on this node; check its network plugin"
