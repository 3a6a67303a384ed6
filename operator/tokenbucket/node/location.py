"""The IP addresses of the node's network namespaces, and the location of an address."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from tokenbucket.errors import KernelError
from tokenbucket.netlink.addresses import (
    MOST,
    Address,
    NamespaceAddresses,
    read_addresses,
)
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.events import Event, EventKind
from tokenbucket.netlink.links import Link

log = logging.getLogger(__name__)


class LocationKind(enum.Enum):
    """Kinds of locations of addresses."""

    NAMESPACE = "namespace"
    """In one namespace of a pod."""
    HOST = "host"
    """In the node's namespace."""
    AMBIGUOUS = "ambiguous"
    """In more than one namespace."""
    UNKNOWN = "unknown"
    """In no namespace that an interface of the node leads to, and in none with a name in /run/netns."""


@dataclass(frozen=True, slots=True)
class AddressLocation:
    """The location of addresses, and the host-side interfaces that lead there."""

    place: LocationKind
    veths: tuple[Link, ...] = ()
    others: tuple[Link, ...] = ()
    """Interfaces of other kinds than veth."""
    nsids: tuple[int, ...] = ()
    pod_only: tuple[Link, ...] = ()
    """Interfaces in the namespace that have no end on the node."""
    unread: str = ""
    """Why the interfaces in the namespace could not be read."""
    other_ends: tuple[Link, ...] = ()
    """Interfaces in the namespace whose other ends are not on the node, such as veths between namespaces."""

    @property
    def can_be_limited(self) -> bool:
        """Whether there are interfaces that a limit can be attached to."""
        return bool(self.veths or self.pod_only)


class AddressIndex:
    """Addresses by namespace, and namespaces by address.

    A namespace is a number that the node's namespace has for it, or ``None`` for the node's own.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_namespace: dict[int | None, frozenset[Address]] = {}
        self._owners: dict[Address, set[int | None]] = {}
        self._held: dict[int | None, dict[Address | None, set[int]]] = {}
        """The interfaces that have each address, by namespace."""
        self._unreadable: set[int] = set()
        """Namespaces whose addresses could not be read the last time."""

    @property
    def by_namespace(self) -> Mapping[int | None, frozenset[Address]]:
        """Addresses by namespace."""
        return MappingProxyType(self._by_namespace)

    def owners(self, addresses: Iterable[Address]) -> set[int | None]:
        """Return the namespaces that have any of these addresses."""
        return set().union(*(self._owners.get(address, ()) for address in addresses))

    def interfaces(self, nsid: int, addresses: Iterable[Address] | None = None) -> frozenset[int]:
        """Return the interfaces of a namespace that have an address of any scope, or one of these."""
        held = self._held.get(nsid, {})
        found = held.values() if addresses is None else (held.get(each, set()) for each in addresses)
        return frozenset().union(*found)

    def apply(self, event: Event) -> bool:
        """Add or remove the address of an event. Return whether the namespace is known.

        The cost does not depend on the number of addresses that the kernel would list.
        """
        held = self._held.get(event.nsid)
        if held is None:
            return False
        ifindexes = held.get(event.address, set())
        if event.kind is EventKind.DEL_ADDRESS:
            ifindexes.discard(event.ifindex)
        elif event.nsid is None or len(held) < MOST:
            ifindexes.add(event.ifindex)
            held[event.address] = ifindexes
        if not ifindexes:
            held.pop(event.address, None)
        if event.address:
            self._own_or_disown(event.nsid, event.address)
        return True

    def _own_or_disown(self, nsid: int | None, address: Address) -> None:
        known = self._by_namespace[nsid]
        if address in self._held[nsid]:
            self._owners.setdefault(address, set()).add(nsid)
            self._by_namespace[nsid] = known if address in known else known | {address}
        elif address in known:
            self._disown(nsid, address)
            self._by_namespace[nsid] = known - {address}

    def _disown(self, nsid: int | None, address: Address) -> None:
        self._owners[address].discard(nsid)
        if not self._owners[address]:
            del self._owners[address]

    def read_all(self, nsids: AbstractSet[int | None]) -> set[int | None]:
        """Read the addresses of these namespaces, and forget all others. Returns as :meth:`read`."""
        for nsid in self._by_namespace.keys() - nsids:
            self._replace(nsid, None)
        return self.read(nsids, nsids)

    def read(self, nsids: Iterable[int | None], reachable: AbstractSet[int | None]) -> set[int | None]:
        """Read the addresses of namespaces, or forget them if a namespace is not ``reachable``.

        Returns the namespaces that could not be read. Their addresses stay as they were.

        Raises:
            KernelError: the addresses of the node's namespace cannot be read.
        """
        failed: set[int | None] = set()
        for nsid in nsids:
            try:
                found = read_addresses(self._connection, nsid) if nsid in reachable else None
            except KernelError as error:
                if nsid is None:
                    raise
                failed.add(nsid)
                self._log_failure(nsid, error)
                continue
            self._replace(nsid, found)
            if nsid is not None:
                self._unreadable.discard(nsid)
        self._unreadable &= reachable
        return failed

    def _log_failure(self, nsid: int, error: KernelError) -> None:
        if nsid not in self._unreadable:
            log.warning("addresses not read", extra={"nsid": nsid, "error": str(error)})
        self._unreadable.add(nsid)

    def _replace(self, nsid: int | None, found: NamespaceAddresses | None) -> None:
        before = self._by_namespace.pop(nsid, frozenset())
        self._held.pop(nsid, None)
        now = found.addresses if found else frozenset()
        for address in before - now:
            self._disown(nsid, address)
        if found is not None:
            self._by_namespace[nsid] = before if before == now else now
            held = self._held[nsid] = {}
            for ifindex, each in found.held:
                held.setdefault(each, set()).add(ifindex)
            for address in now - before:
                self._owners.setdefault(address, set()).add(nsid)
