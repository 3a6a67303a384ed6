"""A view of the node: interfaces, the addresses behind them, and the filters and root qdiscs on them.

Events make parts of a view stale, and :meth:`View.refresh` reads only those parts again. A full reconcile
run starts with :meth:`View.invalidate_all`, so that a lost event has no lasting effect. A view belongs to the
thread of its connection.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import MappingProxyType

from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import IFB, Interface
from tokenbucket.errors import KernelError
from tokenbucket.netlink.addresses import Address
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.events import ADDRESSES, LINKS, NSIDS, TRAFFIC_CONTROL, Event, EventKind
from tokenbucket.netlink.filters import LinkFilters
from tokenbucket.netlink.fq import Root, read_roots
from tokenbucket.netlink.links import VETH, Link, read_link, read_links
from tokenbucket.netlink.monitor import Ignoring, ignore_nothing
from tokenbucket.netlink.namespaces import inside, own_namespace
from tokenbucket.node.attachments import Attachments
from tokenbucket.node.inside_pods import PodNamespaces
from tokenbucket.node.location import AddressIndex, AddressLocation, LocationKind
from tokenbucket.node.named_namespaces import NamedNamespaces
from tokenbucket.node.pod_links import PodLinks
from tokenbucket.node.staleness import Stale


class View:
    """The view. Empty until the first refresh."""

    def __init__(self, connection: Connection, tcx: Tcx, ignoring: Ignoring = ignore_nothing) -> None:
        self._connection = connection
        self._tcx = tcx
        self._ignoring = ignoring
        self._attachments = Attachments(connection, tcx, own_namespace().inode)
        self._links: dict[int, Link] = {}
        self._behind: dict[int | None, list[Link]] = {}
        """Interfaces of the node by the namespace that they lead to."""
        self._addresses = AddressIndex(connection)
        self._filters: dict[int, LinkFilters] = {}
        self._roots: dict[int, Root] = {}
        self._stale = Stale()
        self.named = NamedNamespaces(connection)
        self._pod_links = PodLinks(connection, self._ends, self._in_use)
        self.pod_namespaces = PodNamespaces(connection, tcx, self._ways)

    @property
    def connection(self) -> Connection:
        """The connection to the node's namespace."""
        return self._connection

    @property
    def links(self) -> Mapping[int, Link]:
        """Interfaces of the node by index."""
        return MappingProxyType(self._links)

    @property
    def addresses(self) -> Mapping[int | None, frozenset[Address]]:
        """Addresses by the number of the namespace; ``None`` is the node's namespace."""
        return self._addresses.by_namespace

    @property
    def filters(self) -> Mapping[int, LinkFilters]:
        """Filters by index of the interface, without interfaces that have none."""
        return MappingProxyType(self._filters)

    @property
    def roots(self) -> Mapping[int, Root]:
        """Root qdiscs by index of the interface, without the kernel's default qdiscs."""
        return MappingProxyType(self._roots)

    def interfaces_of(self, *addresses: Address) -> AddressLocation:
        """Return the location of a pod. Addresses that are in no namespace count only if all are in none."""
        owners = self._addresses.owners(addresses)
        if not owners and self.named.look_for(addresses, self._behind):
            unread = self.named.numbers - self.addresses.keys()
            self._stale.namespaces |= self._addresses.read(unread, self._reachable)
            owners = self._addresses.owners(addresses)
        if not owners:
            return AddressLocation(LocationKind.UNKNOWN)
        nsids = tuple(sorted(nsid for nsid in owners if nsid is not None))
        if len(owners) > 1:
            return AddressLocation(LocationKind.AMBIGUOUS, nsids=nsids)
        return self.leading_to(nsids[0]) if nsids else AddressLocation(LocationKind.HOST)

    def holders(self, addresses: Iterable[Address]) -> AbstractSet[int | None]:
        """Return the numbers of the namespaces that have any of these addresses, ``None`` for the node's."""
        return self._addresses.owners(addresses)

    def leading_to(self, nsid: int) -> AddressLocation:
        """Return the interfaces of the node that lead to a namespace, and those of the pod alone."""
        behind = self._behind.get(nsid, [])
        veths = tuple(link for link in behind if link.kind == VETH)
        others = tuple(link for link in behind if link.kind != VETH)
        pod_only, unread = self._pod_links.of(nsid), self._pod_links.unread.get(nsid, "")
        elsewhere = self._pod_links.with_other_ends(nsid)
        return AddressLocation(LocationKind.NAMESPACE, veths, others, (nsid,), pod_only, unread, elsewhere)

    def left_out(self, where: AddressLocation, addresses: Iterable[Address]) -> list[Link]:
        """Return a pod's interfaces that have one of these addresses, or a peer in another pod, not here."""
        used = self._addresses.interfaces(where.nsids[0], addresses)
        return [each for each in where.other_ends if each.ifindex in used or self._is_of_a_pod(each.nsid)]

    def _is_of_a_pod(self, nsid: int | None) -> bool:
        return nsid is not None and (nsid in self._behind or nsid in self.named.numbers)

    def namespace_behind(self, interface: Interface) -> int | None:
        """Return the number of the namespace that a host-side interface leads to, or a pod-side one is in."""
        if interface.namespace:
            return self._nsid_of(interface)
        link = self._links.get(interface.ifindex)
        return link.nsid if link else None

    def all_namespaces(self) -> Iterator[tuple[int, Mapping[int, LinkFilters], Mapping[int, Root]]]:
        """Yield inode, filters and root qdiscs: of the node, with inode 0, and of the entered namespaces."""
        yield 0, self._filters, self._roots
        for known in self.pod_namespaces.known.values():
            yield known.namespace.inode, known.filters, known.roots

    def filters_at(self, interface: Interface) -> LinkFilters:
        """Return the filters of a host-side or pod-side interface."""
        if not interface.namespace:
            return self._filters.get(interface.ifindex, LinkFilters())
        nsid = self._nsid_of(interface)
        if nsid is None:
            return LinkFilters()
        return self.pod_namespaces.known[nsid].filters.get(interface.ifindex, LinkFilters())

    def name_of(self, interface: Interface) -> str:
        """Return the name of an interface for messages."""
        if not interface.namespace:
            link = self._links.get(interface.ifindex)
            return link.name if link else f"interface {interface.ifindex}"
        if interface.is_ifb:
            return "the pod's ifb device"
        nsid = self._nsid_of(interface)
        alone = () if nsid is None else self._pod_links.known(nsid)
        if name := next((link.name for link in alone if link.ifindex == interface.ifindex), ""):
            return f"the pod's {name}"
        host_side = (link.name for link in self._links.values() if link.nsid == nsid and nsid is not None)
        return f"the pod's end of {next(host_side, 'an interface')}"

    @contextmanager
    def writable(self, interface: Interface) -> Iterator[Connection]:
        """Provide a connection for a change to an interface, mark the interface stale, and ignore the events.

        Raises:
            KernelError: with ENODEV if the pod's namespace no longer exists.
        """
        if not interface.namespace:
            self._stale.filters.add(interface.ifindex)
            self._stale.roots = True
            yield self._connection
            return
        nsid = self._nsid_of(interface)
        if nsid is None:
            raise KernelError("enter", self.name_of(interface), errno.ENODEV)
        self.pod_namespaces.mark_stale(nsid)
        namespace = self.pod_namespaces.known[nsid].namespace
        with inside(namespace) as connection, self._ignoring(nsid, connection.portid):
            yield connection

    @contextmanager
    def attachments(self, interface: Interface) -> Iterator[Attachments]:
        """Provide the attachments of an interface's namespace for a change, as :meth:`writable`."""
        inode = interface.namespace
        with self.writable(interface) as connection:
            yield Attachments(connection, self._tcx, inode) if inode else self._attachments

    def look_for_programs(self) -> bool:
        """Mark the interfaces of the node stale whose programs of tcx or XDP changed, which causes no event.

        Return whether there are any; none if all is read next anyway. Raises KernelError.
        """
        if self._stale.everything:
            return False
        links = read_links(self._connection)
        both = self._links.keys() & links.keys()
        intercepted = {i for i in both if links[i].xdp_program_id != self._links[i].xdp_program_id}
        changed = self._attachments.changed(links)
        self._stale.links |= intercepted
        self._stale.filters |= changed
        return bool(intercepted or changed)

    def invalidate_all(self) -> None:
        """Mark everything stale."""
        self._stale = Stale()
        self.named.mark_stale()
        self._pod_links.mark_all_stale(lost_events=False)
        self.pod_namespaces.mark_all_stale()

    def mark_stale(self, event: Event) -> None:
        """Mark the parts stale that an event is about."""
        if event.kind in ADDRESSES and self._addresses.apply(event):
            return
        self._stale.mark(event, self._links)
        if event.kind is EventKind.OVERFLOW:
            self.named.mark_stale()
            self._pod_links.mark_all_stale(lost_events=True)
            self.pod_namespaces.mark_all_stale()
        elif event.nsid is not None and event.kind in NSIDS:
            if event.kind is EventKind.DEL_NSID:
                self.named.forget(event.nsid)
            self._pod_links.forget(event.nsid)
            self.pod_namespaces.forget(event.nsid)
        elif event.nsid is not None and event.kind in LINKS:
            self._pod_links.mark_changed(event.nsid, event.ifindex)
        if event.nsid is not None and (event.kind in TRAFFIC_CONTROL or event.ifindex == IFB):
            self.pod_namespaces.mark_stale(event.nsid)

    def refresh(self) -> None:
        """Read all stale parts again. The part of a pod that cannot be read stays as it was, and stale.

        Raises:
            KernelError: the node's own namespace cannot be read. Parts that were not read stay stale.
        """
        if self._stale.everything:
            self._read_everything()
        else:
            self._read_stale()
        self.pod_namespaces.refresh()

    def _read_everything(self) -> None:
        self._stale = Stale()
        links = read_links(self._connection)
        nsids = {link.nsid for link in links.values()} | {None} | self.named.read_again()
        filters = self._attachments.read_all(links)
        self._roots = read_roots(self._connection)
        unread = self._addresses.read_all(nsids)
        self._links = links
        self._index_links()
        self._filters = {ifindex: found for ifindex, found in filters.items() if found != LinkFilters()}
        self._stale = Stale(everything=False, namespaces=unread)

    def _read_stale(self) -> None:
        if self._stale.links:
            self._read_links()
            self._index_links()
        if self._stale.namespaces:
            self._stale.namespaces = self._addresses.read(self._stale.namespaces, self._reachable)
        self._read_filters()
        if self._stale.roots:
            self._roots = read_roots(self._connection)
            self._stale.roots = False

    def _read_links(self) -> None:
        for ifindex in tuple(self._stale.links):
            link = read_link(self._connection, ifindex)
            before = self._links.pop(ifindex, None)
            if link:
                self._links[ifindex] = link
            if link and link.nsid not in self.addresses:
                self._stale.namespaces.add(link.nsid)
            if before and before.nsid is not None and (link is None or link.nsid != before.nsid):
                self._stale.namespaces.add(before.nsid)
            self._stale.links.discard(ifindex)

    def _read_filters(self) -> None:
        for ifindex in tuple(self._stale.filters):
            found = self._attachments.read(ifindex) if ifindex in self._links else LinkFilters()
            self._filters.pop(ifindex, None)
            if found != LinkFilters():
                self._filters[ifindex] = found
            self._stale.filters.discard(ifindex)

    def _index_links(self) -> None:
        self._behind = {}
        for link in self._links.values():
            self._behind.setdefault(link.nsid, []).append(link)

    @property
    def _reachable(self) -> AbstractSet[int | None]:
        """The namespaces whose addresses are read."""
        return self._behind.keys() | {None} | self.named.numbers

    def _ends(self, nsid: int) -> frozenset[int]:
        """Return the indexes inside a namespace of the veth interfaces whose peers are on the node."""
        links = (link for link in self._behind.get(nsid, ()) if link.kind == VETH)
        return frozenset(link.peer_ifindex for link in links if link.peer_ifindex is not None)

    def _ways(self, nsid: int) -> frozenset[int]:
        """Return the indexes inside a namespace of the interfaces that may have a limit."""
        return self._ends(nsid) | {link.ifindex for link in self._pod_links.known(nsid)}

    def _in_use(self, nsid: int) -> frozenset[int]:
        """Return the indexes inside a namespace of interfaces that have an address or a limit."""
        entered = self.pod_namespaces.known.get(nsid)
        return self._addresses.interfaces(nsid) | (entered.with_ours if entered else set())

    def _nsid_of(self, interface: Interface) -> int | None:
        known = self.pod_namespaces.known.items()
        return next((nsid for nsid, found in known if found.namespace.inode == interface.namespace), None)
