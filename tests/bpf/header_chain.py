"""Frames with chains of headers, built from the inside out, with the lengths that a kernel would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

ETHERTYPES = {"ip4": 0x0800, "ip6": 0x86DD, "eth": 0x6558, "vlan": 0x8100, "qinq": 0x88A8, "mpls": 0x8847}
PROTOCOLS = {
    "hop": 0,
    "routing": 43,
    "options": 60,
    "ah": 51,
    "ip4": 4,
    "ip6": 41,
    "gre": 47,
    "mpls": 137,
    "tcp": 6,
    "udp": 17,
    "vxlan": 17,
    "gpe": 17,
    "mpls in udp": 17,
    "geneve": 17,
    "fou": 17,
    "gue": 17,
    "sctp": 132,
    "esp": 50,
}


_STEPS = {"udp": 4, "mpls in udp": 3, **dict.fromkeys(("vxlan", "gpe", "geneve", "fou", "gue"), 2)}


class Header(NamedTuple):
    """One header of a chain. ``size`` is the length of its options, in units that depend on the kind."""

    kind: str
    size: int = 0

    @property
    def steps(self) -> int:
        """Return the number of headers that the program reads. In UDP, it also looks for a tunnel."""
        return _STEPS.get(self.kind, 1)

    def before(self, inner: bytes, after: str) -> bytes:
        """Return the header. The chain continues with ``inner``, which begins with ``after``."""
        return _BUILDERS[self.kind](self.size, inner, after)


@dataclass(frozen=True)
class Chain:
    """The headers of a packet behind its Ethernet addresses, and the payload."""

    headers: tuple[Header, ...]
    payload: bytes

    @property
    def frame(self) -> bytes:
        """Return the Ethernet frame."""
        packet, after = self.payload, ""
        for header in reversed(self.headers):
            packet, after = header.before(packet, after) + packet, header.kind
        return bytes(12) + struct.pack("!H", ETHERTYPES[after]) + packet

    @property
    def steps(self) -> int:
        """Return the number of headers that the program reads."""
        return sum(header.steps for header in self.headers)

    def segments(self, gso_size: int) -> int:
        """Return the number of packets on the wire."""
        return -(-len(self.payload) // gso_size)

    def wire_bytes(self, gso_size: int) -> int:
        """Return the bytes on the wire: the headers of each segment, and the payload."""
        headers = len(self.frame) - len(self.payload)
        return self.segments(gso_size) * headers + len(self.payload)


def _ip4(words: int, inner: bytes, after: str) -> bytes:
    length = 20 + 4 * words
    start = struct.pack("!BBHIBB", 0x45 + words, 0, length + len(inner), 0, 64, PROTOCOLS[after])
    return start.ljust(length, b"\0")


def _ip6(_: int, inner: bytes, after: str) -> bytes:
    return struct.pack("!IHBB", 0x60000000, len(inner), PROTOCOLS[after], 64).ljust(40, b"\0")


def _extension(size: int, _: bytes, after: str) -> bytes:
    return bytes([PROTOCOLS[after], size]).ljust(8 + 8 * size, b"\0")


def _ah(size: int, _: bytes, after: str) -> bytes:
    return bytes([PROTOCOLS[after], size + 1]).ljust(12 + 4 * size, b"\0")


def _tag(_: int, __: bytes, after: str) -> bytes:
    return struct.pack("!HH", 7, ETHERTYPES[after])


def _mpls(_: int, __: bytes, after: str) -> bytes:
    return struct.pack("!I", 16 << 12 | (after != "mpls") << 8 | 64)


def _eth(_: int, __: bytes, after: str) -> bytes:
    return bytes(12) + struct.pack("!H", ETHERTYPES[after])


def _gre(flags: int, _: bytes, after: str) -> bytes:
    bits = (0, 0x80, 0x20, 0xB0)[flags]
    return struct.pack("!BBH", bits, 0, ETHERTYPES[after]).ljust(4 + 4 * bits.bit_count(), b"\0")


def _tcp(words: int, _: bytes, __: str) -> bytes:
    return bytes(12) + bytes([(5 + words) << 4]) + bytes(7 + 4 * words)


def _udp(inner_bytes: int) -> bytes:
    return struct.pack("!HHHH", 1234, 8472, 8 + inner_bytes, 0)


_BUILDERS = {
    **dict.fromkeys(("hop", "routing", "options"), _extension),
    **dict.fromkeys(("vlan", "qinq"), _tag),
    "ip4": _ip4,
    "ip6": _ip6,
    "ah": _ah,
    "mpls": _mpls,
    "eth": _eth,
    "gre": _gre,
    "tcp": _tcp,
    "udp": lambda _, inner, __: _udp(len(inner)),
    "sctp": lambda *_: bytes(12),
    "esp": lambda *_: bytes(24),
    "vxlan": lambda _, inner, __: _udp(8 + len(inner)) + b"\x08" + bytes(7),
    "gpe": lambda _, inner, after: (
        _udp(8 + len(inner)) + bytes([12, 0, 0, {"ip4": 1, "ip6": 2, "eth": 3}[after]]) + bytes(4)
    ),
    "mpls in udp": lambda _, inner, after: _udp(4 + len(inner)) + _mpls(0, inner, after),
    "geneve": lambda words, inner, after: (
        _udp(8 + 4 * words + len(inner))
        + struct.pack("!BBH", words, 0, ETHERTYPES[after]).ljust(8 + 4 * words, b"\0")
    ),
    "fou": lambda _, inner, __: _udp(len(inner)),
    "gue": lambda words, inner, after: (
        _udp(4 + 4 * words + len(inner)) + bytes([words, PROTOCOLS[after]]).ljust(4 + 4 * words, b"\0")
    ),
}
