"""Where a pod's limits belong: the interfaces that lead to its addresses, or those where its limits are."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from tokenbucket.agent.queues import NO_FQ, Queues
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.desired import Address, PodInterfaces
from tokenbucket.core.planning.hook import End, Interface
from tokenbucket.core.planning.placement import Placements
from tokenbucket.core.planning.reasons import Degradation, Reason
from tokenbucket.errors import KernelError
from tokenbucket.netlink.location import AddressLocation, Place
from tokenbucket.netlink.view import View

_NOT_NAMED = "no path leads to the pod's network namespace, in /run/netns or of a process; Drop is in force"
_NOT_LOCATED = {
    Place.UNKNOWN: (
        Reason.NO_INTERFACE,
        "no interface of this node leads to a namespace with the pod's address",
    ),
    Place.HOST: (Reason.HOST_NETWORK, "the pod's address is the node's own; it is not limited"),
    Place.AMBIGUOUS: (
        Reason.ADDRESS_CONFLICT,
        "more than one network namespace, or another than the pod's, has the pod's addresses",
    ),
}


@dataclass(frozen=True, slots=True)
class Locator:
    """Of one pass. Belongs to the agent's thread."""

    view: View
    queues: Queues
    homes: Placements

    def locate(
        self, pod: PodId, addresses: frozenset[Address], waits: AbstractSet[Direction]
    ) -> PodInterfaces:
        """The interfaces of a pod with these addresses, and why packets cannot wait there."""
        where = self.view.interfaces_of(*addresses)
        if where.place is Place.NAMESPACE and self.homes.admit(pod, where.nsids[0]):
            return self._behind(where, waits)
        place = Place.AMBIGUOUS if where.place is Place.NAMESPACE else where.place
        reason, message = _NOT_LOCATED[place]
        # Else a pod that may configure its network could lift its limit, or another's.
        home = self.homes.of(pod)
        where = AddressLocation(Place.UNKNOWN) if home is None else self.view.leading_to(home)
        if not where.veths:
            return PodInterfaces({}, reason, message)
        return replace(
            self._behind(where, waits), reason=reason, message=f"{message}; the limit stays where it was"
        )

    def _behind(self, where: AddressLocation, waits: AbstractSet[Direction]) -> PodInterfaces:
        """What leads to a namespace."""
        if not where.veths:
            return PodInterfaces({}, Reason.NO_INTERFACE, _not_a_veth(where))
        ends = {End.HOST: frozenset(Interface(link.ifindex) for link in where.veths)}
        no_queue = {}
        if Direction.INGRESS in waits:
            no_queue[Direction.INGRESS] = self.queues.why_not(self.view, ends[End.HOST], self.view.roots)
        if Direction.EGRESS in waits:
            ends[End.POD], no_queue[Direction.EGRESS] = self._pod_side(where)
        return PodInterfaces(ends, no_queue={each: why for each, why in no_queue.items() if why})

    def _pod_side(self, where: AddressLocation) -> tuple[frozenset[Interface], Degradation | None]:
        """The pod's own ends of its veths, and why what it sends cannot wait on them."""
        if not self.queues.available:
            return frozenset(), NO_FQ
        try:
            found = self.view.pod_namespaces.enter(where.nsids[0])
        except KernelError as error:
            return frozenset(), Degradation(Reason.NO_NAMESPACE, f"{error}; Drop is in force")
        if not found:
            return frozenset(), Degradation(Reason.NO_NAMESPACE, _NOT_NAMED)
        inode = found.namespace.inode
        ends = frozenset(Interface(link.peer_ifindex, inode) for link in where.veths if link.peer_ifindex)
        for each in ends:
            if there := found.in_the_way(each.ifindex):
                message = f"{self.view.name_of(each)}: {there}; Drop is in force"
                return ends, Degradation(Reason.NO_FILTER_IN_POD, message)
        return ends, self.queues.why_not(self.view, ends, found.roots)


def _not_a_veth(where: AddressLocation) -> str:
    others = ", ".join(f"{link.name} ({link.kind})" for link in where.others)
    return (
        f"the pod is reached over {others}, which is no veth"
        if others
        else "the pod has no veth on this node"
    )
