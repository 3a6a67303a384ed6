"""Reads the IP addresses of a network namespace.

``IFA_TARGET_NETNSID`` selects another namespace by its number, so that the namespace need not be entered.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tokenbucket.errors import IgnoreErrno
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import ADDRESS, Message, attribute, attributes

Address = IPv4Address | IPv6Address

MOST = 4096
"""Addresses read of one pod. A pod with very many addresses must not delay the reading of others."""


HeldAddress = tuple[int, Address | None]
"""An address with the index of its interface. ``None`` stands for a loopback or link-local address, which
every namespace has."""


@dataclass(frozen=True, slots=True)
class NamespaceAddresses:
    """The addresses of a namespace."""

    held: frozenset[HeldAddress] = frozenset()

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses without loopback and link-local addresses."""
        return frozenset(address for _, address in self.held if address)

    @property
    def ifindexes(self) -> frozenset[int]:
        """Interfaces with an address of any scope."""
        return frozenset(ifindex for ifindex, _ in self.held)


def read_addresses(connection: Connection, nsid: int | None = None) -> NamespaceAddresses | None:
    """Return all addresses of the connection's namespace, or the first 4096 of namespace ``nsid``.

    Returns ``None`` if the namespace does not exist.

    Raises:
        KernelError: the kernel rejects the request.
    """
    any_family = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    if nsid is None:
        return _addresses(connection.dump(uapi.RTM_GETADDR, any_family, "addresses"))
    target = any_family + attribute(uapi.IFA_TARGET_NETNSID, struct.pack("=i", nsid))
    with IgnoreErrno(errno.EINVAL):
        return _addresses(
            connection.dump_partial(uapi.RTM_GETADDR, target, f"addresses of namespace {nsid}", MOST)
        )
    return None


def _addresses(messages: Iterable[Message]) -> NamespaceAddresses:
    return NamespaceAddresses(frozenset(held_address(message.body) for message in messages))


def held_address(body: bytes) -> HeldAddress:
    """Return the address of a message, and the index of its interface."""
    return ADDRESS.unpack_from(body)[4], _address(body)


def _address(body: bytes) -> Address | None:
    family = body[0]
    found = attributes(body, ADDRESS.size)
    # On a point-to-point interface IFA_ADDRESS is the address of the peer.
    raw = found.get(uapi.IFA_LOCAL) or found.get(uapi.IFA_ADDRESS) or b""
    if family == socket.AF_INET and len(raw) == 4:
        return None if raw[0] == 127 or raw[:2] == b"\xa9\xfe" else IPv4Address(raw)
    if family == socket.AF_INET6 and len(raw) == 16:
        link_local = raw[0] == 0xFE and raw[1] & 0xC0 == 0x80
        return None if link_local or raw == b"\0" * 15 + b"\1" else IPv6Address(raw)
    return None
