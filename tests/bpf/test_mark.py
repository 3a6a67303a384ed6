"""Mark: an excess packet is forwarded with another code point and otherwise unchanged."""

from __future__ import annotations

import struct

import pytest

from tests.bpf.bucket_machine import Machine, config

NOW_NS = 10**12
TAGS = {"no tag": b"", "802.1Q": b"\x81\x00\x00\x05", "802.1ad": b"\x88\xa8\x00\x05\x81\x00\x00\x06"}
ECN_CE = 3


def ipv4(tos: int) -> bytes:
    """Return an IPv4 header with a valid checksum, and UDP."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 48, 1, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + bytes(28)


def checksum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv6(traffic_class: int) -> bytes:
    """Return an IPv6 header, and UDP."""
    return struct.pack("!IHBB", 6 << 28 | traffic_class << 20 | 0xABCDE, 8, 17, 64) + bytes(32 + 28)


FAMILIES = {"IPv4": (b"\x08\x00", ipv4), "IPv6": (b"\x86\xdd", ipv6)}


def exceeding(machine: Machine, packet: bytes, dscp: int) -> bytes:
    """Send a packet that finds the bucket empty. Return the packet afterwards."""
    machine.configure(config(packets_per_s=1, burst_packets=1, dscp=dscp))
    machine.fill(NOW_NS)
    machine.packet = packet
    assert machine.offer(NOW_NS)
    assert machine.left == packet, "a conforming packet keeps its code point"
    assert machine.offer(NOW_NS)
    return machine.left


@pytest.mark.parametrize("hook", ["machine", "ingress_machine"])
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("before", "dscp"), [(0, 10), (63, 0), (46, 63)])
def test_only_the_code_point_changes(
    request: pytest.FixtureRequest, hook: str, tags: str, family: str, before: int, dscp: int
) -> None:
    """The ECN bits stay, the IPv4 checksum is valid, and the program finds the header behind VLAN tags."""
    ethertype, header = FAMILIES[family]
    front = bytes(12) + TAGS[tags] + ethertype
    machine = request.getfixturevalue(hook)
    marked = exceeding(machine, front + header(before << 2 | ECN_CE), dscp)
    assert marked == front + header(dscp << 2 | ECN_CE)
    assert machine.slots.stats(machine.index).marked_packets == 1


@pytest.mark.parametrize("packet", [bytes(12) + b"\x08\x06" + bytes(46), bytes(12) + b"\x12\x34" + bytes(46)])
def test_packets_other_than_ip_are_forwarded_unchanged(machine: Machine, packet: bytes) -> None:
    """ARP has no code point, and does not count as marked."""
    assert exceeding(machine, packet, 10) == packet
    assert machine.slots.stats(machine.index).marked_packets == 0


def test_mark_does_not_charge_excess_packets(machine: Machine) -> None:
    """The next token goes to the next packet that conforms."""
    machine.configure(config(packets_per_s=1, burst_packets=2, dscp=10))
    machine.fill(NOW_NS)
    assert all(machine.offer(NOW_NS) for _ in range(20))
    assert machine.offer(NOW_NS + 10**9)
    stats = machine.slots.stats(machine.index)
    assert (stats.conform_packets, stats.marked_packets) == (3, 18)


def test_observe_marks_no_packet(machine: Machine) -> None:
    """Observe mode only counts excess packets."""
    packet = bytes(12) + b"\x08\x00" + ipv4(0)
    machine.configure(config(packets_per_s=1, burst_packets=1, dscp=10, observe=True))
    machine.fill(NOW_NS)
    machine.packet = packet
    assert machine.offer(NOW_NS)
    assert machine.offer(NOW_NS)
    assert machine.left == packet
    assert machine.slots.stats(machine.index).exceed_packets == 1
