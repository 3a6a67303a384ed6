"""A picture of the host: its links, whose addresses are behind them, and the filters on them.

Events make parts of it stale, and :meth:`View.refresh` reads those parts again and no others. The picture is
never trusted further than that: a full pass begins with :meth:`View.invalidate_all`.

A view belongs to the thread of its connection.
"""

from __future__ import annotations

import enum
import errno
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from tokenbucket.core.planning.hook import Interface
from tokenbucket.errors import KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.addresses import Address, read_addresses
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.events import ADDRESSES, NSIDS, QDISCS, TRAFFIC_CONTROL, Event, EventKind
from tokenbucket.netlink.filters import Filters, LinkFilters
from tokenbucket.netlink.links import VETH, Link, read_link, read_links
from tokenbucket.netlink.namespaces import inside
from tokenbucket.netlink.pod_namespaces import PodNamespaces
from tokenbucket.netlink.queues import Root, read_roots

log = logging.getLogger(__name__)


class Place(enum.Enum):
    """Where addresses live."""

    NAMESPACE = "namespace"
    """In one namespace, reached over the links that are given."""
    HOST = "host"
    """On the host itself."""
    AMBIGUOUS = "ambiguous"
    """In more than one namespace."""
    UNKNOWN = "unknown"
    """Nowhere behind a link of the host."""


@dataclass(frozen=True, slots=True)
class AddressLocation:
    """Where addresses live, and the host-side links that lead there."""

    place: Place
    veths: tuple[Link, ...] = ()
    others: tuple[Link, ...] = ()
    """Links that lead there but are no veth."""
    nsids: tuple[int, ...] = ()


@dataclass(slots=True)
class _Stale:
    """What is to be read again. A namespace of ``None`` is the host's own."""

    everything: bool = True
    links: set[int] = field(default_factory=set)
    namespaces: set[int | None] = field(default_factory=set)
    filters: set[int] = field(default_factory=set)
    roots: bool = False


class View:
    """The picture. Empty until the first refresh."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._filter_reader = Filters(connection)
        self._links: dict[int, Link] = {}
        self._addresses: dict[int | None, frozenset[Address]] = {}
        self._filters: dict[int, LinkFilters] = {}
        self._roots: dict[int, Root] = {}
        self._owners: dict[Address, set[int | None]] = {}
        self._behind: dict[int | None, list[Link]] = {}
        self._stale = _Stale()
        self._unreadable: set[int] = set()
        """Namespaces whose addresses could not be read the last time."""
        self.pod_namespaces = PodNamespaces(connection, self._ends)

    @property
    def connection(self) -> Connection:
        """The connection that it reads by."""
        return self._connection

    @property
    def links(self) -> Mapping[int, Link]:
        """Links of the host by index."""
        return MappingProxyType(self._links)

    @property
    def addresses(self) -> Mapping[int | None, frozenset[Address]]:
        """Addresses by the number of the namespace; those of the host under ``None``."""
        return MappingProxyType(self._addresses)

    @property
    def filters(self) -> Mapping[int, LinkFilters]:
        """Filters by index of the link, for links that have any."""
        return MappingProxyType(self._filters)

    @property
    def roots(self) -> Mapping[int, Root]:
        """Root qdiscs by index of the link, where they are not the kernel's default."""
        return MappingProxyType(self._roots)

    def interfaces_of(self, *addresses: Address) -> AddressLocation:
        """Where a pod with these addresses lives. Addresses that are nowhere count only if all are."""
        owners: set[int | None] = set().union(*(self._owners.get(address, ()) for address in addresses))
        if not owners:
            return AddressLocation(Place.UNKNOWN)
        nsids = tuple(sorted(nsid for nsid in owners if nsid is not None))
        if len(owners) > 1:
            return AddressLocation(Place.AMBIGUOUS, nsids=nsids)
        return self.leading_to(nsids[0]) if nsids else AddressLocation(Place.HOST)

    def leading_to(self, nsid: int) -> AddressLocation:
        """The links that lead to a namespace."""
        behind = self._behind.get(nsid, [])
        veths = tuple(link for link in behind if link.kind == VETH)
        others = tuple(link for link in behind if link.kind != VETH)
        return AddressLocation(Place.NAMESPACE, veths, others, (nsid,))

    def _ends(self, nsid: int) -> frozenset[int]:
        """Indexes inside a namespace of the links that lead there."""
        links = self.leading_to(nsid).veths
        return frozenset(link.peer_ifindex for link in links if link.peer_ifindex is not None)

    def namespace_behind(self, interface: Interface) -> int | None:
        """The number of the namespace to which an interface leads, or of which it is."""
        if interface.namespace:
            return self._nsid_of(interface)
        link = self._links.get(interface.ifindex)
        return link.nsid if link else None

    def everywhere(self) -> Iterator[tuple[int, Mapping[int, LinkFilters], Mapping[int, Root]]]:
        """Filters and root qdiscs of the node's namespace and of every pod's that was entered, by its inode,
        which is 0 for the node's.
        """
        yield 0, self._filters, self._roots
        for each in self.pod_namespaces.known.values():
            yield each.namespace.inode, each.filters, each.roots

    def filters_at(self, interface: Interface) -> LinkFilters:
        """The filters of an interface, also of a pod's own."""
        if not interface.namespace:
            return self._filters.get(interface.ifindex, LinkFilters())
        nsid = self._nsid_of(interface)
        return LinkFilters() if nsid is None else self._filters_inside(nsid, interface.ifindex)

    def name_of(self, interface: Interface) -> str:
        """The interface in words."""
        if not interface.namespace:
            link = self._links.get(interface.ifindex)
            return link.name if link else f"interface {interface.ifindex}"
        nsid = self._nsid_of(interface)
        host_side = (link.name for link in self._links.values() if link.nsid == nsid and nsid is not None)
        return f"the pod's end of {next(host_side, 'an interface')}"

    @contextmanager
    def changing(self, interface: Interface) -> Iterator[Connection]:
        """A connection for a change to an interface, which is to be read again: changes of one's own make no
        event. Raises KernelError, ENODEV where a pod's namespace is no more.
        """
        if not interface.namespace:
            self._stale.filters.add(interface.ifindex)
            self._stale.roots = True
            yield self._connection
            return
        nsid = self._nsid_of(interface)
        if nsid is None:
            raise KernelError("enter", self.name_of(interface), errno.ENODEV)
        self.pod_namespaces.note(nsid)
        with inside(self.pod_namespaces.known[nsid].namespace) as connection:
            yield connection

    def _nsid_of(self, interface: Interface) -> int | None:
        known = self.pod_namespaces.known.items()
        return next((nsid for nsid, each in known if each.namespace.inode == interface.namespace), None)

    def _filters_inside(self, nsid: int, ifindex: int) -> LinkFilters:
        return self.pod_namespaces.known[nsid].filters.get(ifindex, LinkFilters())

    def invalidate_all(self) -> None:
        """Everything is to be read again."""
        self._stale = _Stale()
        self.pod_namespaces.note_all()

    def note(self, event: Event) -> None:
        """What an event says is stale is to be read again."""
        if event.kind is EventKind.OVERFLOW:
            self.invalidate_all()
        elif event.kind in ADDRESSES:
            self._stale.namespaces.add(event.nsid)
        elif event.kind in NSIDS:
            self._stale.namespaces.add(event.nsid)
            self._stale.links.update(self._leading_to(event.nsid))
            if event.nsid is not None:
                self.pod_namespaces.forget(event.nsid)
        elif event.kind in TRAFFIC_CONTROL:
            if event.nsid is None:
                self._stale.filters.add(event.ifindex)
                self._stale.roots |= event.kind in QDISCS and event.parent == uapi.TC_H_ROOT
            else:
                self.pod_namespaces.note(event.nsid)
        else:
            self._note_link(event)

    def _note_link(self, event: Event) -> None:
        if event.kind is EventKind.DEL_LINK:
            # It may have moved to another namespace; its other end is told nothing then.
            self._stale.links.update(self._leading_to(event.nsid, event.ifindex))
        if event.nsid is not None:
            return
        self._stale.links.add(event.ifindex)
        if event.kind is EventKind.DEL_LINK or event.ifindex not in self._links:
            self._stale.filters.add(event.ifindex)

    def _leading_to(self, nsid: int | None, peer_ifindex: int | None = None) -> Iterable[int]:
        return [
            link.ifindex
            for link in self._links.values()
            if link.nsid == nsid and peer_ifindex in {None, link.peer_ifindex}
        ]

    def refresh(self) -> None:
        """Reads again what is stale. What has vanished is simply gone.

        A pod's namespace that cannot be read is as it was, and holds up nothing else. Raises KernelError for
        the node's own; what could not be read is still stale.
        """
        if self._stale.everything:
            self._read_everything()
        else:
            self._read_what_is_stale()
        self.pod_namespaces.refresh()

    def _read_what_is_stale(self) -> None:
        if self._stale.links:
            self._refresh_links()
            self._index_links()
        self._refresh_addresses()
        self._refresh_filters()
        if self._stale.roots:
            self._roots = read_roots(self._connection)
            self._stale.roots = False

    def _read_everything(self) -> None:
        self._stale = _Stale()
        links = read_links(self._connection)
        nsids = {link.nsid for link in links.values()} | {None}
        self._unreadable &= nsids
        addresses = {nsid: self._read_addresses(nsid) for nsid in nsids}
        filters = self._filter_reader.read_all()
        self._roots = read_roots(self._connection)
        self._links = links
        self._index_links()
        self._addresses = {nsid: found for nsid, found in addresses.items() if found is not None}
        self._filters = {ifindex: found for ifindex, found in filters.items() if found != LinkFilters()}
        self._owners = {}
        for nsid, found in self._addresses.items():
            for address in found:
                self._owners.setdefault(address, set()).add(nsid)
        self._stale.everything = False

    def _index_links(self) -> None:
        """Links by the namespace that they lead to."""
        self._behind = {}
        for link in self._links.values():
            self._behind.setdefault(link.nsid, []).append(link)

    def _refresh_links(self) -> None:
        for ifindex in tuple(self._stale.links):
            link = read_link(self._connection, ifindex)
            before = self._links.pop(ifindex, None)
            if link:
                self._links[ifindex] = link
            if link and link.nsid not in self._addresses:
                self._stale.namespaces.add(link.nsid)
            if before and before.nsid is not None and (link is None or link.nsid != before.nsid):
                self._stale.namespaces.add(before.nsid)
            self._stale.links.discard(ifindex)

    def _refresh_addresses(self) -> None:
        if not self._stale.namespaces:
            return
        reachable = self._behind.keys() | {None}
        for nsid in tuple(self._stale.namespaces):
            self._stale.namespaces.discard(nsid)
            self._replace_addresses(nsid, self._read_addresses(nsid) if nsid in reachable else None)
        self._unreadable &= reachable

    def _read_addresses(self, nsid: int | None) -> frozenset[Address] | None:
        """What was known of a pod's namespace that cannot be read; it stays stale then."""
        try:
            found = read_addresses(self._connection, nsid)
        except KernelError as error:
            self._stale.namespaces.add(nsid)
            if nsid is None:
                raise
            if nsid not in self._unreadable:
                log.warning("addresses not read", extra={"nsid": nsid, "error": str(error)})
            self._unreadable.add(nsid)
            return self._addresses.get(nsid)
        self._unreadable.discard(nsid)
        return found

    def _replace_addresses(self, nsid: int | None, found: frozenset[Address] | None) -> None:
        before = self._addresses.pop(nsid, frozenset())
        for address in before - (found or frozenset()):
            self._owners[address].discard(nsid)
            if not self._owners[address]:
                del self._owners[address]
        if found is not None:
            self._addresses[nsid] = found
            for address in found:
                self._owners.setdefault(address, set()).add(nsid)

    def _refresh_filters(self) -> None:
        for ifindex in tuple(self._stale.filters):
            found = self._filter_reader.read(ifindex) if ifindex in self._links else LinkFilters()
            self._filters.pop(ifindex, None)
            if found != LinkFilters():
                self._filters[ifindex] = found
            self._stale.filters.discard(ifindex)
