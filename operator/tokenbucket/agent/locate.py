"""Location of a pod's limits: the interfaces that lead to its addresses, or that have its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import IFB, DataPlane, End, Hook, Interface, Mechanism
from tokenbucket.core.planning.capabilities import Degradation
from tokenbucket.core.planning.desired import Address, Search
from tokenbucket.core.planning.namespace_moves import Placements
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.errors import KernelError
from tokenbucket.netlink.fq import Root
from tokenbucket.netlink.links import Link
from tokenbucket.node.inside_pods import PodNamespace
from tokenbucket.node.location import AddressLocation, LocationKind
from tokenbucket.node.other_limiters import find_shapers, why_cilium_limits
from tokenbucket.node.pod_links import MOST
from tokenbucket.node.view import View

_NOT_LOCATED = {
    LocationKind.UNKNOWN: (
        Reason.NO_INTERFACE,
        "pod: its address is in no network namespace of this node; check that the pod runs here",
    ),
    LocationKind.HOST: (
        Reason.HOST_NETWORK,
        "pod: has an address of the node; exclude the pod from spec.podSelector",
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
    namespaces: Mapping[PodId, int]
    """The namespaces that are proven to be a pod's."""

    def locate(self, search: Search) -> PodInterfaces:
        """Return the interfaces of a pod, or the reason why there are none."""
        proven = self.namespaces.get(search.pod)
        if proven is not None:
            return self._behind(self.view.leading_to(proven), search)
        where = self._where(search.addresses)
        if where.place is LocationKind.NAMESPACE and self._may_be_in(search.pod, where.nsids[0]):
            return self._behind(where, search)
        place = LocationKind.AMBIGUOUS if where.place is LocationKind.NAMESPACE else where.place
        reason, message = _NOT_LOCATED[place]
        # Keep a placed limit: otherwise a pod with NET_ADMIN could remove its limit, or another pod's.
        nsid = self.placements.of(search.pod)
        if nsid is None or nsid in self.namespaces.values():
            return PodInterfaces({}, reason=reason, message=message)
        where = self.view.leading_to(nsid)
        if not where.can_be_limited:
            return PodInterfaces({}, reason=reason, message=message)
        message = f"{message}; the limit stays on its last interface"
        return replace(self._behind(where, search), reason=reason, message=message)

    def _where(self, addresses: AbstractSet[Address]) -> AddressLocation:
        """Return the location of addresses. An address that another pod took does not count there."""
        where = self.view.interfaces_of(*addresses)
        if where.place is LocationKind.AMBIGUOUS:
            left = self.view.holders(addresses) - {*self.namespaces.values()}
            if len(left) == 1 and (nsid := next(iter(left))) is not None:
                return self.view.leading_to(nsid)
        return where

    def _may_be_in(self, pod: PodId, nsid: int) -> bool:
        """Return whether a pod with an address in this namespace may be limited there."""
        return nsid not in self.namespaces.values() and self.placements.admit(pod, nsid)

    def _behind(self, where: AddressLocation, search: Search) -> PodInterfaces:
        """Return the interfaces that lead to a namespace, and those in it that lead elsewhere."""
        enters = search.enter or (where.pod_only and search.may_enter)
        inside = self._enter(where.nsids[0]) if enters else ""
        pod_only, problem = self._pod_only(where, search, inside)
        problem = "; ".join(filter(None, (problem, self._left_out(where, search))))
        if not (where.veths or pod_only):
            reason = Reason.INTERFACE_NOT_LIMITED if problem else Reason.NO_INTERFACE
            return PodInterfaces({}, reason=reason, message=problem or _describe_others(where))
        ends: dict[End, frozenset[Interface]] = {}
        if where.veths:
            ends[End.HOST] = frozenset(Interface(link.ifindex) for link in where.veths)
        no_queue: dict[Direction, Degradation | None] = {}
        if search.enter:
            pod_side, no_queue[Direction.EGRESS] = self._pod_side(where, pod_only, inside)
            ends |= {End.POD: pod_side} if where.veths else {}
        if Direction.INGRESS in search.waits:
            no_queue[Direction.INGRESS] = self._why_received_cannot_wait(ends, pod_only, inside)
        return PodInterfaces(
            ends,
            pod_only,
            Reason.INTERFACE_NOT_LIMITED if problem else None,
            problem,
            {direction: why for direction, why in no_queue.items() if why},
            self._also_limited(where, search),
        )

    def _also_limited(self, where: AddressLocation, search: Search) -> Mapping[Direction, str]:
        """Return who else limits the pod, by direction."""
        cilium = why_cilium_limits() if search.annotated else ""
        by_cilium = dict.fromkeys(search.annotated, cilium) if cilium else {}
        return by_cilium | find_shapers(self.view, where.veths)

    def _enter(self, nsid: int) -> PodNamespace | str:
        """Return a pod's namespace, or why the agent cannot enter it."""
        try:
            return self.view.pod_namespaces.enter(nsid) or "no path in /run/netns or /proc"
        except KernelError as error:
            return str(error)

    def _pod_only(
        self, where: AddressLocation, search: Search, inside: PodNamespace | str
    ) -> tuple[frozenset[Interface], str]:
        """Return the interfaces of the pod without an end on the node, and why not all can be limited."""
        if where.unread:
            return frozenset(), f"pod: its interfaces cannot be read: {where.unread}; the agent tries again"
        if not where.pod_only:
            return frozenset(), ""
        subject = f"{_names(where.pod_only)}: without an end on the node"
        if not search.may_enter:
            return frozenset(), (
                f"{subject}, in a pod with an overhead, which may be a virtual machine; "
                "use a veth interface, or exclude the pod"
            )
        if isinstance(inside, str):
            return frozenset(), (
                f"{subject}, and the network namespace cannot be entered: {inside}; "
                "grant SYS_ADMIN and /run/netns (agent.enterPods)"
            )
        limited, others = where.pod_only[:MOST], where.pod_only[MOST:]
        interfaces = frozenset(Interface(link.ifindex, inside.namespace.inode) for link in limited)
        problem = (
            f"{_names(others)}: not limited beyond {MOST} interfaces; remove interfaces" if others else ""
        )
        return interfaces, problem

    def _left_out(self, where: AddressLocation, search: Search) -> str:
        """Return why the agent does not limit some interfaces of a pod, or an empty text."""
        links = where.other_ends and self.view.left_out(where, search.addresses)
        if not links:
            return ""
        return (
            f"{_names(links)}: not limited, because packets pass no interface of the node; "
            "replace the interface, or exclude the pod"
        )

    def _pod_side(
        self, where: AddressLocation, pod_only: frozenset[Interface], inside: PodNamespace | str
    ) -> tuple[frozenset[Interface], Degradation | None]:
        """Return the pod-side ends of veths, and why packets that leave the pod cannot be delayed."""
        if isinstance(inside, str):
            message = f"network namespace: cannot be entered: {inside}; excess packets are dropped"
            return frozenset(), Degradation(Reason.NO_NAMESPACE, message)
        inode = inside.namespace.inode
        ends = frozenset(Interface(link.peer_ifindex, inode) for link in where.veths if link.peer_ifindex)
        filtered = (each for each in ends if self.data_plane.mechanism(each) is Mechanism.CLSACT)
        for interface in filtered:
            if there := inside.in_the_way(interface.ifindex):
                message = f"{self.view.name_of(interface)}: {there}; excess packets are dropped"
                return ends, Degradation(Reason.NO_FILTER_IN_POD, message)
        return ends, self._foreign_root(ends | pod_only, inside.roots)

    def _why_received_cannot_wait(
        self,
        ends: Mapping[End, frozenset[Interface]],
        pod_only: frozenset[Interface],
        inside: PodNamespace | str,
    ) -> Degradation | None:
        """Return why packets that a pod receives cannot wait, on the node or at the ifb device."""
        has_pod_side = bool(ends.get(End.POD))
        end, hook = self.data_plane.end_and_hook(Direction.INGRESS, delays=True, has_pod_side=has_pod_side)
        at_end = ends.get(end, frozenset())
        redirected = pod_only | (at_end if hook is Hook.INGRESS else frozenset())
        queued = at_end - redirected
        if foreign := self._foreign_root(queued, self.view.roots):
            return foreign
        if not redirected or isinstance(inside, str):
            return None
        for interface in sorted(redirected):
            if there := inside.program_at_ingress(interface.ifindex):
                message = f"{self.view.name_of(interface)}: {there} prevents a queue in the pod"
                return Degradation(Reason.NO_QUEUE_IN_POD, f"{message}; excess packets are dropped")
        return self._foreign_root({Interface(IFB, inside.namespace.inode)}, inside.roots)

    def _foreign_root(self, ends: Iterable[Interface], roots: Mapping[int, Root]) -> Degradation | None:
        """Return why one of the ends cannot have tokenbucket's root qdisc. ``roots`` are those present."""
        for interface in ends:
            root = roots.get(interface.ifindex)
            if root and not root.ours:
                message = f"{self.view.name_of(interface)}: a foreign {root}; excess packets are dropped"
                return Degradation(Reason.FOREIGN_QDISC, message)
        return None


def _names(links: Iterable[Link]) -> str:
    return ", ".join(f"{link.name} ({link.kind or 'network adapter'})" for link in links)


def _describe_others(where: AddressLocation) -> str:
    if where.others:
        return f"pod: has only {_names(where.others)} on this node; exclude the pod or change its network"
    return "pod: has no interface that leads out of it; check its network plugin"
