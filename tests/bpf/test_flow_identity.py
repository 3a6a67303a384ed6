"""Packets with the same hash are one flow of a fair queue: the hash of addresses, ports and labels."""

from __future__ import annotations

import struct

import pytest

from tests.bpf.bucket_machine import Machine
from tests.bpf.test_delay import FULL, MS, NOW_NS
from tests.bpf.test_fair import fair


def udp(source_port: int, size_bytes: int = 1480) -> bytes:
    """Return a datagram of UDP."""
    return struct.pack("!HHHH", source_port, 53, size_bytes, 0) + bytes(size_bytes - 8)


def over_ipv4(payload: bytes, protocol: int = 17, fragment: int = 0) -> bytes:
    """Return an Ethernet frame with IPv4."""
    addresses = (0x0A000001, 0x0A000002)
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0, *addresses)
    return bytes(12) + b"\x08\x00" + header + payload


def over_ipv6(payload: bytes, label: int) -> bytes:
    """Return an Ethernet frame with IPv6."""
    header = struct.pack("!IHBB", 0x60000000 | label, len(payload), 17, 64)
    return bytes(12) + b"\x86\xdd" + header + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        (over_ipv4(udp(1)), over_ipv4(udp(2)), False),
        (over_ipv4(udp(1), fragment=0x2000), over_ipv4(udp(2), fragment=0x2000), True),
        (over_ipv6(udp(1, 1460), 0), over_ipv6(udp(2, 1460), 0), False),
        (over_ipv6(udp(1, 1460), 5), over_ipv6(udp(2, 1460), 5), True),
        (over_ipv6(udp(1, 1460), 5), over_ipv6(udp(1, 1460), 6), False),
        (over_ipv4(over_ipv4(udp(1, 1460))[14:], 4), over_ipv4(over_ipv4(udp(2, 1460))[14:], 4), False),
        (over_ipv4(udp(1), 50), over_ipv4(udp(2), 50), False),
    ],
    ids=["ports", "fragments", "IPv6 ports", "one label", "two labels", "IPIP", "ESP"],
)
def test_addresses_ports_and_labels_identify_a_flow(
    machine: Machine, one: bytes, other: bytes, *, are_one: bool
) -> None:
    """The other packet does not wait behind the first packets, unless they are one flow."""
    machine.configure(fair(100 * MS, bits_per_s=10**7, burst_bytes=10_000))
    machine.fill(NOW_NS)
    machine.packet = one
    assert all(machine.offer(NOW_NS, FULL, 1) for _ in range(40))
    waits_ns = machine.departs_ns - NOW_NS
    machine.packet = other
    assert machine.offer(NOW_NS, FULL, 1)
    assert (machine.departs_ns > NOW_NS + waits_ns) == are_one
    assert machine.departs_ns == 0 or are_one
