"""Charges of packets, and packets that are never dropped."""

from __future__ import annotations

import contextlib
import math
from ipaddress import ip_address

import pytest

from tests.bpf.bucket_machine import UDP_PACKET, Machine, config
from tokenbucket.bpf.node_addresses import NodeAddresses
from tokenbucket.bpf.pins import Pins
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Rate
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.bucket import bucket_of
from tokenbucket.core.limits.slot import RESERVE_BURST_BYTES, config_of
from tokenbucket.errors import KernelError

NOW_NS = 10**12
RATE = 8 * 10**6
IPV4_TCP, IPV6_TCP, IPV4_UDP, IPV6_UDP = "IPv4 TCP", "IPv6 TCP", "IPv4 UDP", "IPv6 UDP"


def frame(kind: str, size: int) -> tuple[bytes, int]:
    """Return an Ethernet frame of ``size`` bytes, and the length of its headers. TCP has 12 option bytes."""
    ip = {"IPv4": b"\x45" + bytes(8), "IPv6": b"\x60" + bytes(5)}[kind[:4]]
    protocol = {"TCP": 6, "UDP": 17}[kind[5:]]
    ip += bytes([protocol]) + bytes(10 if kind.startswith("IPv4") else 33)
    transport = bytes(12) + b"\x80" + bytes(19) if kind.endswith("TCP") else bytes(8)
    ethertype = b"\x08\x00" if kind.startswith("IPv4") else b"\x86\xdd"
    headers = bytes(12) + ethertype + ip + transport
    return headers + bytes(size - len(headers)), len(headers)


def charged_bytes(machine: Machine) -> int:
    """Return the cost of the one packet since ``fill``, in bytes at RATE."""
    now_q = gcra.word_of(NOW_NS)
    burst_q = gcra.bytes_time_q(10**6, RATE)
    left = gcra.tokens_q(machine.slots.meters(machine.index).bytes_tat, now_q, burst_q)
    return gcra.bytes_in(burst_q - left, RATE)


def ready(machine: Machine, packet: bytes) -> None:
    """Fill a bucket of 1 MB."""
    machine.packet = packet
    machine.configure(config(bits_per_s=RATE, burst_bytes=10**6))
    machine.fill(NOW_NS)


@pytest.mark.parametrize("kind", [IPV4_TCP, IPV6_TCP, IPV4_UDP, IPV6_UDP])
@pytest.mark.parametrize(("size", "gso_size"), [(3000, 1000), (3001, 500), (1200, 1400), (1500, 40)])
def test_both_hooks_charge_a_gso_packet_the_same(
    machine: Machine, ingress_machine: Machine, kind: str, size: int, gso_size: int
) -> None:
    """The kernel gives the egress hook the wire length. The ingress hook computes it from the segments."""
    packet, headers = frame(kind, size)
    segments = max(1, -(-(size - headers) // gso_size))
    wire_bytes = size + (segments - 1) * headers
    ready(machine, packet)
    assert machine.offer(NOW_NS, wire_bytes, segments)
    ready(ingress_machine, packet)
    assert ingress_machine.offer(NOW_NS, gso_segs=segments, gso_size=gso_size, wire_len=0)
    assert charged_bytes(machine) == charged_bytes(ingress_machine) == wire_bytes
    ready(machine, packet)
    assert machine.offer(NOW_NS, wire_bytes, gso_size=gso_size), "of a virtual machine"
    assert machine.slots.stats(machine.index).conform_packets == segments
    assert ingress_machine.slots.stats(ingress_machine.index).conform_packets == segments


def test_a_gso_packet_larger_than_the_burst_passes_a_full_bucket(machine: Machine) -> None:
    """The program charges the whole packet, so later packets wait for all of its tokens."""
    machine.configure(config(bits_per_s=RATE, burst_bytes=1500))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, 65_536)
    ns_per_byte = 8 * 10**9 // RATE
    paid_ns = NOW_NS + (65_536 - 1500) * ns_per_byte
    assert not machine.offer(paid_ns + 63 * ns_per_byte, 64)
    assert machine.offer(paid_ns + 64 * ns_per_byte, 64)


ARP = bytes(12) + b"\x08\x06" + bytes(46)


def solicitation(hop_limit: int) -> bytes:
    return frame("IPv6 UDP", 90)[0][:20] + bytes([58, hop_limit, *bytes(32), 135, *bytes(9)])


SOLICITATION = solicitation(255)


@pytest.mark.parametrize("packet", [ARP, SOLICITATION], ids=["ARP", "ND"])
def test_neighbor_discovery_survives_a_flood(machine: Machine, packet: bytes) -> None:
    """Neighbor discovery passes an empty bucket, up to the reserve."""
    empty(machine, reserve_packets=3)
    machine.packet = packet
    assert [machine.offer(NOW_NS) for _ in range(5)] == [True] * 3 + [False] * 2


def test_neighbor_discovery_from_another_link_has_no_part_in_the_reserve(machine: Machine) -> None:
    """Any host could send such a packet (RFC 4861, 7.1)."""
    empty(machine, reserve_packets=3)
    machine.packet = solicitation(254)
    assert not machine.offer(NOW_NS)


def test_bulk_has_no_part_in_the_reserve(machine: Machine) -> None:
    """The reserve is for probes."""
    empty(machine, reserve_packets=1000, node_reserve=True)
    assert machine.offer(NOW_NS, 1 << 14, ingress_ifindex=0)
    assert not machine.offer(NOW_NS, (1 << 14) + 1, ingress_ifindex=0)


@pytest.mark.parametrize("rate", [Rate(None, 100), Rate(None, 1), Rate(10**9, 1000), Rate(8000)], ids=str)
def test_a_flood_of_neighbor_discovery_never_gets_past_a_tenth_of_the_rate(
    machine: Machine, rate: Rate
) -> None:
    """The debt of the bucket stays bounded. A larger debt would read as a full bucket."""
    bucket = bucket_of(Limit(rate), Mode.ENFORCE, action=ExceedAction.DROP)
    machine.configure(config_of(bucket, Direction.INGRESS, node_reserve=True))
    machine.fill(NOW_NS)
    machine.packet = ARP[:42]
    offered = 3 * min(rate.packets_per_s or math.inf, (rate.bits_per_s or math.inf) / (8 * 42))
    flood_s = 3000 / offered
    admitted = sum(machine.offer(NOW_NS + round(i * 10**9 / offered)) for i in range(3000))
    meters = machine.slots.meters(machine.index)
    reserve_packets = RESERVE_BURST_BYTES / 42 + 1
    for word, packets_per_s, burst_packets in (
        (meters.packets_tat, rate.packets_per_s, bucket.burst_packets),
        (meters.bytes_tat, (rate.bits_per_s or 0) / (8 * 42), (bucket.burst_bytes or 0) / 42),
    ):
        if packets_per_s:
            assert admitted <= 1.1 * flood_s * packets_per_s + (burst_packets or 0) + reserve_packets
            debt_q = (word - gcra.word_of(NOW_NS + round(flood_s * 10**9))) % 2**64
            assert (
                debt_q < 1.1 * reserve_packets / packets_per_s * 10**9 * gcra.QUANTA_PER_NS or debt_q > 2**63
            )


def test_packets_of_the_node_pass_in_the_reserve_and_are_charged(machine: Machine) -> None:
    """A probe of the kubelet passes during a flood, and is charged to the pod's bucket."""
    empty(machine, reserve_packets=2, node_reserve=True)
    before = machine.slots.meters(machine.index).bytes_tat
    assert [machine.offer(NOW_NS, ingress_ifindex=0) for _ in range(3)] == [True, True, False]
    assert machine.slots.meters(machine.index).bytes_tat - before == 2 * gcra.bytes_time_q(64, RATE)
    assert machine.slots.stats(machine.index).reserve_packets == 2


def test_forwarded_packets_have_no_part_in_the_reserve(machine: Machine) -> None:
    """Only packets that the node itself sends use the reserve."""
    empty(machine, reserve_packets=2, node_reserve=True)
    assert not machine.offer(NOW_NS, ingress_ifindex=3)


@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x07"], ids=["untagged", "VLAN"])
@pytest.mark.parametrize("node", ["10.0.0.1", "fd00::1"])
def test_packets_of_the_node_are_recognized_by_source_inside_a_pod(
    ingress_machine: Machine, pins: Pins, node: str, tag: bytes
) -> None:
    """Inside a pod, every packet has an ingress interface.
    Packets from other addresses do not use the reserve.
    """
    addresses = NodeAddresses(pins)
    addresses.write({ip_address(node)})
    empty(ingress_machine, reserve_packets=2, node_reserve=True)
    ingress_machine.packet = sent_by(node, tag)
    assert [ingress_machine.offer(NOW_NS) for _ in range(3)] == [True, True, False]
    empty(ingress_machine, reserve_packets=2, node_reserve=True)
    for other in ("10.0.0.2", "fd00::2", "::ffff:10.0.0.1", "::a00:1"):
        ingress_machine.packet = sent_by(other, tag)
        mapped = other == "::ffff:10.0.0.1" and node == "10.0.0.1"
        assert ingress_machine.offer(NOW_NS) == mapped
    addresses.write(set())
    addresses.close()


def sent_by(source: str, tag: bytes) -> bytes:
    """Return a frame of at most 64 bytes with that source address, and UDP."""
    address = ip_address(source)
    if address.version == 4:
        return (
            bytes(12)
            + tag
            + b"\x08\x00\x45"
            + bytes(8)
            + b"\x11"
            + bytes(2)
            + address.packed
            + bytes(34 - len(tag))
        )
    return bytes(12) + tag + b"\x86\xdd\x60" + bytes(5) + b"\x11\x40" + address.packed + bytes(24 - len(tag))


def empty(machine: Machine, reserve_packets: int, **flags: bool) -> None:
    """Empty the bucket, and configure a reserve for so many packets of 64 bytes."""
    reserve_q = gcra.bytes_time_q(64 * reserve_packets, RATE)
    limit = config(
        bits_per_s=RATE, burst_bytes=64, reserve_bits_per_s=RATE, reserve_burst_q=reserve_q, **flags
    )
    machine.configure(limit)
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS)


def test_observe_counts_and_forwards_excess_packets(machine: Machine) -> None:
    """Excess packets are not charged, so the counters match those of Enforce mode."""
    machine.configure(config(packets_per_s=1, burst_packets=5, observe=True))
    machine.fill(NOW_NS)
    assert all(machine.offer(NOW_NS) for _ in range(20))
    stats = machine.slots.stats(machine.index)
    assert (stats.conform_packets, stats.exceed_packets) == (5, 15)


@pytest.mark.parametrize("slot", [0, 9, 60_000])
def test_packets_without_a_slot_pass_and_are_counted(machine: Machine, slot: int) -> None:
    """Fail open and count the packets, for free slots and for numbers beyond the table."""
    before = machine.slots.stats(0).unmetered_packets
    assert all(machine.offer(NOW_NS, mark=slot) for _ in range(10))
    assert machine.slots.stats(0).unmetered_packets - before == 10


def test_a_new_rate_leaves_the_bucket_as_it_is(machine: Machine) -> None:
    """A change of the configuration does not fill an empty bucket."""
    machine.configure(config(packets_per_s=1, burst_packets=5))
    machine.fill(NOW_NS)
    assert sum(machine.offer(NOW_NS) for _ in range(10)) == 5
    machine.change(config(packets_per_s=2, burst_packets=50), NOW_NS)
    assert not machine.offer(NOW_NS)
    assert machine.slots.stats(machine.index).conform_packets == 5


def test_a_dropped_packet_changes_no_word(machine: Machine) -> None:
    """A dropped packet is charged to neither meter."""
    machine.configure(config(bits_per_s=RATE, burst_bytes=6400, packets_per_s=1, burst_packets=5))
    machine.fill(NOW_NS)
    while machine.offer(NOW_NS):
        pass
    before = machine.slots.meters(machine.index)
    assert not machine.offer(NOW_NS)
    assert machine.slots.meters(machine.index) == before


@pytest.mark.parametrize("length", [15, 20, 34, 54, 55])
def test_the_program_runs_on_truncated_packets(machine: Machine, length: int) -> None:
    """The program reads headers up to the end of the packet. The kernel rejects the shortest packets."""
    for ethertype in (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x00\x3c"):
        machine.packet = UDP_PACKET
        empty(machine, reserve_packets=1)
        machine.packet = (bytes(12) + ethertype + b"\x45" + bytes(64))[:length]
        with contextlib.suppress(KernelError):
            machine.offer(NOW_NS)


def test_the_ingress_hook_counts_each_chunk_of_an_sctp_gso_packet(ingress_machine: Machine) -> None:
    """Its gso_size is GSO_BY_FRAGS, which is not the size of a segment."""
    packet, _ = frame("IPv4 UDP", 3000)
    ready(ingress_machine, packet)
    assert ingress_machine.offer(NOW_NS, gso_segs=45, gso_size=0xFFFF, wire_len=0)
    assert ingress_machine.slots.stats(ingress_machine.index).conform_packets == 45
