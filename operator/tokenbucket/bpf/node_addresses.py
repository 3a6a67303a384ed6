"""The addresses of the node in a kernel map: inside pods, the program recognizes the node by them."""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address

from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import NODE, NODE_MAP, Pins

_ENTRIES = 1024
"""Capacity of the map. The packets of further addresses have no reserve inside pods."""
_MAPPED = bytes(10) + b"\xff\xff"


class NodeAddresses:
    """The map of the node's addresses. Belongs to one thread."""

    def __init__(self, pins: Pins) -> None:
        self._fd = syscall.open_pin(pins.maps / NODE)
        items = syscall.items(self._fd, NODE_MAP.key_size, NODE_MAP.value_size, NODE)
        self._written = {key for key, _ in items}
        self._source: AbstractSet[IPv4Address | IPv6Address] | None = None
        """The set that was written last: thousands of addresses are not compared in each run."""

    def write(self, addresses: AbstractSet[IPv4Address | IPv6Address]) -> None:
        """Make these the addresses of the node. Raises KernelError."""
        if addresses is self._source:
            return
        wanted = set(sorted(map(_key, addresses))[:_ENTRIES])
        for key in self._written - wanted:
            syscall.delete(self._fd, key, NODE)
        for key in wanted - self._written:
            syscall.insert(self._fd, key, b"\1", NODE)
        self._written, self._source = wanted, addresses

    def close(self) -> None:
        """Close the map. The pin stays."""
        os.close(self._fd)


def _key(address: IPv4Address | IPv6Address) -> bytes:
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed
