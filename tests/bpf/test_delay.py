"""Delay: an excess packet gets the time at which it conforms, and the backlog is bounded."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config, context
from tests.bpf.model import SMALL_BYTES, DelayModel, byte_meter, early_drop_limit, packet_meter
from tests.bpf.program_run import run_program
from tests.bpf.test_exactness import EXAMPLES, GAPS_NS, RATES_BITS, STARTS_NS, fitting_the_rate
from tests.bpf.test_mark import checksum, ipv4, ipv6
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT, PeerConfig, SlotConfig

NOW_NS = 10**12
FULL, SUPER, SUPER_SEGMENTS = 1514, 65_536, 44
ECT1, ECT0, CE = 1, 2, 3
MS = 10**6
FRAME = bytes(12) + b"\x08\x00" + ipv4(0) + bytes(1460)
ARP = bytes(12) + b"\x08\x06" + bytes(1500)
BY_HAND = {"802.1Q": b"\x81\x00\x00\x06", "802.1ad": b"\x88\xa8\x00\x06\x81\x00\x00\x06"}
PEERS = PeerConfig(packets_per_s=1000, packets_burst_q=gcra.packets_time_q(64, 1000))
OTHER_POD = 3
"""The ingress interface of a forwarded packet. Packets of the node itself have none."""


def delaying(max_delay_ns: int = 25 * MS, **rates: Any) -> SlotConfig:
    """Return a limit that delays packets."""
    return config(max_delay_q=max_delay_ns * gcra.QUANTA_PER_NS, **rates)


@pytest.fixture(autouse=True)
def _real_packets(request: pytest.FixtureRequest) -> None:
    for name in ("machine", "ingress_machine"):
        if name in request.fixturenames:
            request.getfixturevalue(name).packet = FRAME


def waiting(
    machine: Machine,
    max_delay_ns: int,
    bits_per_s: int,
    ahead_ns: int,
    now_ns: int = NOW_NS,
    *,
    pacing: bool = False,
) -> None:
    """Configure the slot, and charge it for ``ahead_ns`` of backlog."""
    machine.configure(delaying(max_delay_ns, bits_per_s=bits_per_s, burst_bytes=100, pacing=pacing))
    machine.fill(now_ns)
    assert machine.offer(now_ns, 100)
    size = ahead_ns * bits_per_s // (8 * 10**9)
    assert machine.offer(now_ns, size, segments=1 + size // FULL)


@pytest.mark.parametrize("bits_per_s", [8_000, 10**6, 10**8, 10**10, 10**12])
def test_packets_depart_at_the_rate_exactly(machine: Machine, bits_per_s: int) -> None:
    """The first packet waits for its missing tokens.
    Each other packet departs one packet time later, at any rate.
    """
    machine.configure(delaying(10**9, bits_per_s=bits_per_s, burst_bytes=4 * FULL))
    machine.fill(NOW_NS)
    model = DelayModel(byte_meter(bits_per_s, 4 * FULL), None, 10**9)
    for _ in range(40):
        offer_to_both(machine, model, NOW_NS, FULL, 1)


def offer_to_both(machine: Machine, model: DelayModel, now_ns: int, size: int, segments: int) -> None:
    """Assert that the program and the model agree on the verdict and on the departure time."""
    waits = model.offer(now_ns, size, segments)
    assert machine.offer(now_ns, size, segments) == (waits is not None)
    if waits is not None:
        assert machine.departs_ns == (now_ns + waits if waits else 0)


METERS = st.sampled_from([(True, False), (False, True), (True, True)])
PACKETS = st.tuples(
    st.one_of(GAPS_NS, st.integers(0, 30 * MS)),
    st.sampled_from([(60, 1), (256, 1), (257, 1), (600, 1), (1514, 1), (9014, 7), (SUPER, SUPER_SEGMENTS)]),
)


@EXAMPLES
@given(
    METERS,
    RATES_BITS,
    st.integers(64, 2**20),
    st.integers(1, 10**9),
    st.integers(1, 10**4),
    st.integers(5 * MS, 1000 * MS),
    STARTS_NS,
    st.lists(PACKETS, min_size=1, max_size=60),
)
def test_every_departure_matches_the_model(
    machine: Machine,
    meters: tuple[bool, bool],
    bits: int,
    burst: int,
    packets: int,
    packet_burst: int,
    max_delay_ns: int,
    start_ns: int,
    offers: list[tuple[int, tuple[int, int]]],
) -> None:
    """Check byte meters, packet meters and both, with small packets and GSO packets, at any uptime."""
    by_bytes, by_packets = meters
    burst, packet_burst = fitting_the_rate(bits, burst), min(packet_burst, packets * 86_400)
    rates = {"bits_per_s": bits, "burst_bytes": burst} if by_bytes else {}
    rates |= {"packets_per_s": packets, "burst_packets": packet_burst} if by_packets else {}
    machine.configure(delaying(max_delay_ns, **rates))
    machine.fill(start_ns)
    model = DelayModel(
        byte_meter(bits, burst) if by_bytes else None,
        packet_meter(packets, packet_burst) if by_packets else None,
        max_delay_ns,
    )
    now_ns = start_ns
    for gap_ns, (size, segments) in offers:
        now_ns += gap_ns
        offer_to_both(machine, model, now_ns, size, segments)


def test_only_the_backlog_ahead_of_a_packet_counts(machine: Machine) -> None:
    """A GSO packet of half a second passes an empty bucket. It blocks later packets for a while."""
    machine.configure(delaying(25 * MS, bits_per_s=10**6, burst_bytes=2000))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, FULL)
    assert machine.offer(NOW_NS, SUPER, SUPER_SEGMENTS)
    assert machine.departs_ns > NOW_NS
    assert not machine.offer(NOW_NS, FULL)
    assert not machine.offer(NOW_NS + 400 * MS, FULL)
    assert machine.offer(NOW_NS + 515 * MS, FULL)


def test_a_small_packet_never_waits_and_is_charged(machine: Machine) -> None:
    """Behind bulk, a small packet departs at once. The bulk pays for it by a later departure."""
    waiting(machine, 25 * MS, 10**7, 10 * MS)
    before = machine.slots.meters(machine.index).bytes_tat
    assert machine.offer(NOW_NS, SMALL_BYTES)
    assert machine.departs_ns == 0
    charged = machine.slots.meters(machine.index).bytes_tat - before
    assert charged == gcra.bytes_time_q(SMALL_BYTES, 10**7)
    assert machine.offer(NOW_NS, SMALL_BYTES + 1)
    assert machine.departs_ns > NOW_NS


@pytest.mark.parametrize("bits_per_s", [10**6, 10**7, 10**8])
def test_no_small_packet_is_lost_behind_bulk(machine: Machine, bits_per_s: int) -> None:
    """Small packets pass even behind a GSO packet that takes longer than the longest delay."""
    max_delay_ns = max(25 * MS, 16 * FULL * 8 * 10**9 // bits_per_s)
    machine.configure(delaying(max_delay_ns, bits_per_s=bits_per_s, burst_bytes=32_768))
    machine.fill(NOW_NS)
    for step in range(1000):
        machine.offer(NOW_NS + step * MS, SUPER, SUPER_SEGMENTS)
        assert step % 10 or machine.offer(NOW_NS + step * MS, 64)


@pytest.mark.parametrize("segments", [123, 724, 1820], ids=["MSS 536", "MSS 88", "MSS 36"])
@pytest.mark.parametrize(
    "limit", [{"packets_per_s": 1000, "burst_packets": 64}, {"per_peer": PEERS}], ids=str
)
def test_no_small_packet_is_lost_behind_gso_packets_of_small_segments(
    machine: Machine, limit: dict[str, object], segments: int
) -> None:
    """The remote end chooses the segment size, so one packet can take most of a second of the packet rate."""
    machine.configure(delaying(100 * MS, **{"bits_per_s": 10**9, "burst_bytes": 10**7, **limit}))
    machine.fill(NOW_NS)
    passed = 0
    for step in range(2000):
        now_ns = NOW_NS + 10 * step * MS
        passed += machine.offer(now_ns, SUPER, segments, gso_size=40)
        assert machine.offer(now_ns, 64)
    assert passed * segments * MS >= 2000 * 10 * MS * 0.7


def test_a_flood_of_small_packets_gets_the_rate(machine: Machine) -> None:
    """The flood also gets, once, the backlog that it may put ahead of bulk: half of the longest delay."""
    rate, burst, delay_ns = 10**6, FULL, 100 * MS
    machine.configure(delaying(delay_ns, bits_per_s=rate, burst_bytes=burst))
    machine.fill(NOW_NS)
    once = burst + rate // 8 * delay_ns // 10**9 // 2
    count, step_ns = 5_000, 100_000
    admitted = 0
    for number in range(count):
        admitted += 64 * machine.offer(NOW_NS + number * step_ns, 64)
        assert admitted <= once + number * step_ns * rate // (8 * 10**9) + 64
    assert admitted >= once + count * step_ns * rate // (8 * 10**9) - 128


def test_bulk_waits_no_longer_after_a_flood_of_small_packets_than_before(machine: Machine) -> None:
    """A flood takes the whole rate and leaves a backlog of half of the longest delay.
    Bulk may queue behind this backlog.
    """
    machine.configure(delaying(100 * MS, bits_per_s=10**6, burst_bytes=FULL))
    machine.fill(NOW_NS)
    for number in range(5_000):
        machine.offer(NOW_NS + number * 100_000, 64)
    after_ns = NOW_NS + 500 * MS
    assert machine.offer(after_ns, FULL)
    assert machine.departs_ns - after_ns <= 50 * MS + FULL * 8 * 1000


def test_departures_stay_within_rate_and_burst(machine: Machine) -> None:
    """For any load and any time, at most rate x time + burst departs."""
    rate, burst, delay = 10**7, 20_000, 30 * MS
    machine.configure(delaying(delay, bits_per_s=rate, burst_bytes=burst))
    machine.fill(NOW_NS)
    offers = [NOW_NS + step * 50_000 for step in range(4000)]
    departures = [machine.departs_ns or now for now in offers if machine.offer(now, FULL)]
    assert departures == sorted(departures)
    for place, first in enumerate(departures):
        in_100_ms = sum(1 for each in departures[place:] if each <= first + 100 * MS)
        assert in_100_ms * FULL <= rate / 80 + burst + FULL


@pytest.mark.parametrize(("bits_per_s", "packets_per_s"), [(10**9, 50), (10**5, 10**6)])
def test_a_dropped_packet_is_charged_to_neither_meter(
    machine: Machine, bits_per_s: int, packets_per_s: int
) -> None:
    """One meter would delay the packet, and the other meter rejects it."""
    limit = delaying(
        10 * MS, bits_per_s=bits_per_s, burst_bytes=FULL, packets_per_s=packets_per_s, burst_packets=1
    )
    machine.configure(limit)
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, FULL)
    assert machine.offer(NOW_NS, FULL)
    before = machine.slots.meters(machine.index)
    assert not machine.offer(NOW_NS, FULL)
    assert machine.slots.meters(machine.index) == before


def test_no_debt_is_so_large_that_it_reads_as_a_full_bucket(machine: Machine) -> None:
    """Offer a GSO packet of 1,365 segments at 1 packet per second, behind one second of backlog."""
    machine.configure(delaying(1000 * MS, packets_per_s=1, burst_packets=3))
    machine.fill(NOW_NS)
    assert all(machine.offer(NOW_NS, FULL) for _ in range(4))
    patient_ns = next(
        now for now in itertools.count(NOW_NS + MS) if early_drop_limit(1000 * MS, now) > 999 * MS
    )
    assert machine.offer(patient_ns, SUPER, 1365)
    assert not any(machine.offer(patient_ns, FULL) for _ in range(3))
    assert sum(machine.offer(patient_ns, 64) for _ in range(3)) == 1, "the bucket of small packets is full"


@pytest.mark.parametrize(("ahead_ms", "dropped"), [(50, 0), (75, 0.5**4), (90, 0.8**4), (100, 1)])
def test_bulk_is_dropped_by_chance_from_half_of_the_longest_delay_on(
    machine: Machine, ahead_ms: int, dropped: float
) -> None:
    """Random early drop keeps one flow from locking out others.
    No packet is dropped below half, and each packet beyond the longest delay.
    """
    draws = 1500
    lost = 0
    for number in range(draws):
        now_ns = NOW_NS + 1000 * number
        waiting(machine, 100 * MS, 10**6, ahead_ms * MS, now_ns)
        lost += not machine.offer(now_ns, FULL)
    assert lost / draws == pytest.approx(dropped, abs=0.04 if 0 < dropped < 1 else 0)


def test_cpus_do_not_multiply_the_backlog(machine: Machine) -> None:
    """If several CPUs use both meters at one instant, admission and charges are the same as for one CPU."""
    burst, bits_per_s, packets_per_s, max_delay_ns = 50, 2 * 10**9, 100_000, 500 * MS
    threads, repeat = 4, 40_000
    limit = delaying(
        max_delay_ns,
        bits_per_s=bits_per_s,
        burst_bytes=2 * burst * FULL,
        packets_per_s=packets_per_s,
        burst_packets=burst,
    )
    delayed = 1 + int(early_drop_limit(max_delay_ns, NOW_NS) * packets_per_s / 10**9)
    charged_q = (burst + delayed) * gcra.bytes_cost_q(FULL, bits_per_s)
    skb = context(NOW_NS, mark=machine.index, ingress_ifindex=OTHER_POD, wire_len=FULL)
    for _ in range(10):
        machine.configure(limit)
        machine.fill(NOW_NS)
        with ThreadPoolExecutor(threads) as pool:
            runs = [
                pool.submit(run_program, machine.program_fd, FRAME[:FULL], skb, repeat)
                for _ in range(threads)
            ]
            assert all(run.result() for run in runs)
        stats = machine.slots.stats(machine.index)
        assert (stats.conform_packets, stats.delayed_packets) == (burst, delayed)
        assert stats.exceed_packets == threads * repeat - burst - delayed
        word = machine.slots.meters(machine.index).bytes_tat
        left_q = gcra.tokens_q(word, gcra.word_of(NOW_NS), limit.bytes_burst_q)
        assert left_q == limit.bytes_burst_q - charged_q


def test_packets_of_the_node_pass_in_the_reserve_if_no_others_pass(machine: Machine) -> None:
    """A probe of the kubelet passes during a flood of small packets."""
    reserve_q = gcra.bytes_time_q(2 * 64, 10**5)
    limit = delaying(
        5 * MS,
        node_reserve=True,
        bits_per_s=10**6,
        burst_bytes=FULL,
        reserve_bits_per_s=10**5,
        reserve_burst_q=reserve_q,
    )
    machine.configure(limit)
    machine.fill(NOW_NS)
    while machine.offer(NOW_NS, 64):
        pass
    assert [machine.offer(NOW_NS, 64, ingress_ifindex=0) for _ in range(3)] == [True, True, False]
    assert machine.departs_ns == 0


FAMILIES = {"IPv4": (b"\x08\x00", ipv4), "IPv6": (b"\x86\xdd", ipv6)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("ecn", "ahead_ns", "after"),
    [
        (ECT0, 4_900_000, ECT0),
        (ECT0, 5_100_000, CE),
        (ECT1, 900_000, ECT1),
        (ECT1, 1_100_000, CE),
        (0, 20 * MS, 0),
        (CE, 20 * MS, CE),
    ],
)
def test_ecn_capable_packets_are_marked_on_congestion(
    machine: Machine, family: str, ecn: int, ahead_ns: int, after: int
) -> None:
    """Mark ECT(0) from a fifth of the longest delay on, and ECT(1) from 1 ms on.
    The IPv4 checksum stays right.
    """
    waiting(machine, 25 * MS, 10**7, ahead_ns)
    ethertype, header = FAMILIES[family]
    machine.packet = bytes(12) + ethertype + header(ecn) + bytes(1400)
    assert machine.offer(NOW_NS, 2 * FULL, segments=2)
    assert machine.left == bytes(12) + ethertype + header(after) + bytes(1400)
    assert machine.slots.stats(machine.index).ce_packets == 2 * (ecn != after)


def test_ipv4_checksums_stay_right(machine: Machine) -> None:
    """The checksum of a marked packet is valid for the receiver."""
    waiting(machine, 25 * MS, 10**7, 20 * MS)
    machine.packet = bytes(12) + b"\x08\x00" + ipv4(ECT0) + bytes(1400)
    assert machine.offer(NOW_NS, FULL)
    assert machine.left[15] & 3 == CE
    assert checksum(machine.left[14:34]) in {0, 0xFFFF}


@pytest.mark.parametrize("tags", BY_HAND)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packet_with_a_tag_in_its_data_is_not_changed(machine: Machine, tags: str, family: str) -> None:
    """Leave the packet unchanged.
    The kernel's helper would take the tag for the IP header, and move the packet to another VLAN.
    """
    waiting(machine, 25 * MS, 10**7, 20 * MS)
    ethertype, header = FAMILIES[family]
    machine.packet = bytes(12) + BY_HAND[tags] + ethertype + header(ECT0) + bytes(1400)
    assert machine.offer(NOW_NS, FULL)
    assert machine.left == machine.packet


def test_delayed_packets_are_counted_separately(machine: Machine) -> None:
    """Count conforming, delayed and dropped packets separately, and the sum of the delays."""
    machine.configure(delaying(10 * MS, bits_per_s=10**7, burst_bytes=FULL))
    machine.fill(NOW_NS)
    waited = [
        machine.departs_ns and machine.departs_ns - NOW_NS for _ in range(20) if machine.offer(NOW_NS, FULL)
    ]
    stats = machine.slots.stats(machine.index)
    assert stats.conform_packets == waited.count(0) == 1
    assert stats.delayed_packets == len(waited) - 1
    assert stats.delayed_bytes == stats.delayed_packets * FULL
    assert stats.delayed_ns == sum(waited)
    assert stats.exceed_packets == 20 - len(waited)
    assert stats.exceed_bytes == stats.exceed_packets * FULL
    assert stats.seen_packets == 20


def test_the_mean_delay_is_of_wire_packets(machine: Machine) -> None:
    """Count the delay of a GSO packet once for each segment, as its packets."""
    waiting(machine, 25 * MS, 10**7, 0)
    before = machine.slots.stats(machine.index)
    assert machine.offer(NOW_NS, SUPER, SUPER_SEGMENTS)
    stats = machine.slots.stats(machine.index)
    assert stats.delayed_packets - before.delayed_packets == SUPER_SEGMENTS
    waited_ns = machine.departs_ns - NOW_NS
    assert stats.delayed_ns - before.delayed_ns == waited_ns * SUPER_SEGMENTS > 0


def test_packets_other_than_ip_are_not_delayed(machine: Machine) -> None:
    """The kernel accepts no departure time for ARP. ARP packets are charged and bounded as others are."""
    machine.configure(delaying(10 * MS, bits_per_s=10**6, burst_bytes=300))
    machine.fill(NOW_NS)
    machine.packet = ARP
    assert [machine.offer(NOW_NS, 300) for _ in range(2)] == [True, True]
    assert machine.departs_ns == 0
    assert not all(machine.offer(NOW_NS, 300) for _ in range(20))
    assert machine.slots.stats(machine.index).delayed_ns == 0


@pytest.mark.parametrize("size", [64, FULL])
def test_observe_counts_packets_that_delay_would_hold_or_drop(machine: Machine, size: int) -> None:
    """Observe mode forwards all packets at once and unchanged."""
    counts = []
    for observe in (False, True):
        limit = config(
            max_delay_q=25 * MS * gcra.QUANTA_PER_NS, bits_per_s=10**6, burst_bytes=FULL, observe=observe
        )
        machine.configure(limit)
        machine.fill(NOW_NS)
        machine.packet = bytes(12) + b"\x08\x00" + ipv4(ECT0) + bytes(1460)
        passed = [machine.offer(NOW_NS, size) for _ in range(1500)]
        assert all(passed) == observe
        stats = machine.slots.stats(machine.index)
        counts.append((stats.conform_packets, stats.delayed_packets, stats.exceed_packets))
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0
    assert (machine.departs_ns, machine.left, stats.ce_packets) == (0, machine.packet[:size], 0)


def test_the_ingress_hook_delays_no_packet(ingress_machine: Machine) -> None:
    """No queue follows the ingress hook, so excess packets are dropped."""
    ingress_machine.configure(delaying(25 * MS, packets_per_s=10, burst_packets=1))
    ingress_machine.fill(NOW_NS)
    assert ingress_machine.offer(NOW_NS)
    assert not ingress_machine.offer(NOW_NS)


@pytest.mark.parametrize(
    ("stamped_ns", "departs_ns"), [(-5 * MS, 10 * MS), (3 * MS, 10 * MS), (20 * MS, 20 * MS)]
)
def test_the_later_of_two_departure_times_holds(machine: Machine, stamped_ns: int, departs_ns: int) -> None:
    """Compare the program's departure time with the time that an inner limiter set."""
    waiting(machine, 25 * MS, 10**7, 10 * MS, pacing=True)
    assert machine.offer(NOW_NS, FULL, departs_ns=NOW_NS + stamped_ns)
    extra_ns = 0 if departs_ns == stamped_ns else 100 * 8 * 100
    assert machine.departs_ns == NOW_NS + departs_ns + extra_ns


@pytest.mark.parametrize("ahead_ns", [0, 10 * MS])
@pytest.mark.parametrize("size", [64, FULL])
@pytest.mark.parametrize("frame", [FRAME, ARP], ids=["IP", "ARP"])
@pytest.mark.parametrize("ingress_ifindex", [0, OTHER_POD], ids=["own", "forwarded"])
@pytest.mark.parametrize("stamped_ns", [26 * MS, 9 * 10**9, 2**62, 2**63])
def test_no_sender_decides_how_long_the_queue_holds_its_packets(
    machine: Machine, ahead_ns: int, size: int, frame: bytes, ingress_ifindex: int, stamped_ns: int
) -> None:
    """Remove a departure time beyond the longest delay. Any socket can request such a time."""
    waiting(machine, 25 * MS, 10**7, 10 * MS, pacing=True)
    machine.packet = frame
    now_ns = NOW_NS + (0 if ahead_ns else 10**9)
    assert machine.offer(now_ns, size, ingress_ifindex=ingress_ifindex, departs_ns=now_ns + stamped_ns)
    assert machine.departs_ns <= now_ns + 12 * MS


@pytest.mark.parametrize("pacing", [False, True])
@pytest.mark.parametrize("stamped_ns", [0, 9 * 10**9])
@pytest.mark.parametrize("frame", [FRAME, ARP], ids=["IP", "ARP"])
@pytest.mark.parametrize("size", [64, FULL])
def test_no_pacing_rate_of_a_socket_holds_packets(
    machine: Machine, size: int, frame: bytes, stamped_ns: int, *, pacing: bool
) -> None:
    """Stamp each packet of a socket, conforming or small: otherwise fq paces it at the socket's rate."""
    waiting(machine, 25 * MS, 10**7, 10 * MS, pacing=pacing)
    machine.packet = frame
    for now_ns in (NOW_NS, NOW_NS + 10**9):
        assert machine.offer(now_ns, size, departs_ns=now_ns + stamped_ns if stamped_ns else 0)
        assert machine.stamp_ns >= now_ns


@pytest.mark.parametrize("ingress_ifindex", [0, OTHER_POD], ids=["own", "forwarded"])
@pytest.mark.parametrize("pacing", [False, True])
def test_pacing_stays_if_the_queue_stays_bounded(
    machine: Machine, ingress_ifindex: int, *, pacing: bool
) -> None:
    """Keep the departure times of a TCP that finds an fq, unless they could fill the queue."""
    machine.configure(delaying(bits_per_s=10**7, burst_bytes=10 * FULL, pacing=pacing))
    machine.fill(NOW_NS)
    stamp_ns = NOW_NS + 10 * MS
    assert machine.offer(NOW_NS, FULL, ingress_ifindex=ingress_ifindex, departs_ns=stamp_ns)
    assert machine.departs_ns == (stamp_ns if pacing else 0)


@pytest.mark.parametrize("pacing", [False, True])
@pytest.mark.parametrize("longest_backlog_q", [0, 150 * MS * 256], ids=["Fifo", "Fair"])
def test_departure_times_of_senders_exceed_the_bound_by_one_longest_delay(
    machine: Machine, longest_backlog_q: int, *, pacing: bool
) -> None:
    """A sender lets all packets of the longest delay depart together, and continues at the rate."""
    rate, burst, delay_ns, packet_ns = 10**7, 10 * FULL, 100 * MS, FULL * 8 * 100
    more = {"longest_backlog_q": longest_backlog_q, "pacing": pacing}
    machine.configure(delaying(delay_ns, bits_per_s=rate, burst_bytes=burst, **more))
    machine.fill(NOW_NS)
    together_ns = NOW_NS + delay_ns
    arrivals = [NOW_NS] * 9 + list(range(NOW_NS, together_ns + delay_ns, packet_ns))
    departed = []
    for now_ns in arrivals:
        assert machine.offer(now_ns, FULL, departs_ns=max(now_ns, together_ns))
        departed.append(machine.departs_ns or now_ns)
    beyond = [
        (place + 1) * FULL - burst - rate * (departs_ns - min(departed)) // (8 * 10**9)
        for place, departs_ns in enumerate(sorted(departed))
    ]
    longest = rate * delay_ns // (8 * 10**9)
    assert longest - 2 * FULL < max(beyond) <= longest if pacing else max(beyond) <= 0


@pytest.mark.parametrize("ingress_ifindex", [0, OTHER_POD], ids=["own", "forwarded"])
def test_small_packets_that_exceed_never_wait_for_their_own_departure_time(
    machine: Machine, ingress_ifindex: int
) -> None:
    """Do not hold small packets above the longest delay, or packets of the reserve."""
    reserve = {"reserve_bits_per_s": 10**5, "reserve_burst_q": gcra.bytes_time_q(64, 10**5)}
    machine.configure(delaying(bits_per_s=10**6, burst_bytes=100, pacing=True, node_reserve=True, **reserve))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, 100)
    stamp = {"departs_ns": NOW_NS + 10 * MS, "ingress_ifindex": ingress_ifindex}
    while machine.offer(NOW_NS, 64, **stamp):
        assert machine.stamp_ns == NOW_NS, "without a time, fq paces the packet at the rate of its socket"
    reserved = machine.slots.stats(machine.index).reserve_packets
    assert reserved == (ingress_ifindex == 0)


@pytest.mark.parametrize("limit", [{}, {"observe": True, "max_delay_q": 25 * MS * gcra.QUANTA_PER_NS}])
def test_drop_and_observe_keep_departure_times(machine: Machine, limit: dict[str, int]) -> None:
    """Drop and Observe leave the departure times of senders unchanged."""
    machine.configure(config(bits_per_s=10**7, burst_bytes=FULL, **limit))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, FULL, ingress_ifindex=OTHER_POD, departs_ns=NOW_NS + 9 * 10**9)
    assert machine.departs_ns == NOW_NS + 9 * 10**9


def test_the_shipped_entry_point_gives_times_of_the_monotonic_clock(
    compiled_by_bcc: object, slots: Slots
) -> None:
    """Run the entry point with the kernel's clock. A test run has no classid, so the packet uses slot 0."""
    machine = Machine(compiled_by_bcc.load_func(b"at_egress_hook", 3).fd, slots, index=NO_SLOT, packet=FRAME)
    machine.configure(delaying(60_000 * MS, bits_per_s=10**4, burst_bytes=FULL))
    try:
        before_ns = monotonic_ns()
        assert machine.offer(0, 2 * FULL)
        assert before_ns <= machine.departs_ns <= monotonic_ns(), "a full bucket"
        assert machine.offer(0, FULL)
        after_ns = monotonic_ns()
    finally:
        slots.free(NO_SLOT)
    waits_ns = 2 * FULL * 8 * 10**5
    assert before_ns + waits_ns <= machine.departs_ns <= after_ns + waits_ns
