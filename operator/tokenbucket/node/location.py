"""The IP addresses of the node's network namespaces, and the location of an address."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from tokenbucket.errors import KernelError
from tokenbucket.netlink.addresses import Address, NamespaceAddresses, read_addresses
from tokenbucket.netlink.connection import Connection
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
        self._interfaces: dict[int | None, frozenset[int]] = {}
        self._unreadable: set[int] = set()
        """Namespaces whose addresses could not be read the last time."""

    @property
    def by_namespace(self) -> Mapping[int | None, frozenset[Address]]:
        """Addresses by namespace."""
        return MappingProxyType(self._by_namespace)

    def owners(self, addresses: Iterable[Address]) -> set[int | None]:
        """Return the namespaces that have any of these addresses."""
        return set().union(*(self._owners.get(address, ()) for address in addresses))

    def interfaces(self, nsid: int) -> frozenset[int]:
        """Return the interfaces of a namespace that have an address of any scope."""
        return self._interfaces.get(nsid, frozenset())

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
        self._interfaces.pop(nsid, None)
        for address in before - (found.addresses if found else frozenset()):
            self._owners[address].discard(nsid)
            if not self._owners[address]:
                del self._owners[address]
        if found is not None:
            self._by_namespace[nsid] = found.addresses
            self._interfaces[nsid] = found.ifindexes
            for address in found.addresses:
                self._owners.setdefault(address, set()).add(nsid)
