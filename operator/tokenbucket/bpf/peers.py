"""Reads the peers of the slots and the state of their buckets.

One LRU map holds the peers of all slots. Only the program writes it. A slot that gets a new owner starts a
new epoch, so its peers have no entries yet. The kernel evicts the entries of the earlier owner in time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import PEERS, PEERS_MAP, Pins

_IPV4 = 0x0800
_IPV4_BYTES = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer of a slot, and its bucket as theoretical arrival times in quanta."""

    prefix: IPv4Network | IPv6Network
    bytes_tat: int
    packets_tat: int

    def __str__(self) -> str:
        """Return the prefix, or the address alone if the prefix is one address."""
        lone = self.prefix.prefixlen == self.prefix.max_prefixlen
        return str(self.prefix.network_address if lone else self.prefix)


class Peers:
    """The map of all peers. Use an instance as a context manager."""

    def __init__(self, pins: Pins) -> None:
        """Open the pinned map. Raises KernelError with ENOENT if it is not pinned."""
        self._fd = syscall.open_pin(pins.maps / PEERS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the map. The pin stays."""
        os.close(self._fd)

    def of(self, slot: int, epoch: int) -> Iterator[Peer]:
        """Yield the peers of a slot in an epoch. Reads the whole map. Raises KernelError."""
        wanted = struct.pack("=QI", epoch, slot)
        for key, value in syscall.items(self._fd, PEERS_MAP.key_size, PEERS_MAP.value_size, PEERS):
            if key.startswith(wanted):
                meters = layout.Peer.from_buffer_copy(value)
                yield Peer(_prefix(key), meters.bytes_tat, meters.packets_tat)


def _prefix(key: bytes) -> IPv4Network | IPv6Network:
    raw = layout.PeerKey.from_buffer_copy(key)
    address = bytes(raw.prefix)
    if raw.ethertype == _IPV4:
        return IPv4Network((IPv4Address(address[:_IPV4_BYTES]), raw.prefix_length), strict=False)
    return IPv6Network((IPv6Address(address), raw.prefix_length), strict=False)
