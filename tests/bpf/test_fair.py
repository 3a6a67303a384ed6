"""Fair departures: flows share one limit, no packet departs later than in a FIFO queue, no total changes."""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, context
from tests.bpf.fair_model import FairModel, frame
from tests.bpf.model import SMALL_BYTES, byte_meter, early_drop_limit
from tests.bpf.program_run import run_program
from tests.bpf.test_delay import FULL, MS, NOW_NS, SUPER, SUPER_SEGMENTS, delaying
from tests.bpf.test_exactness import EXAMPLES, STARTS_NS, fitting_the_rate
from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import FLOWS, FLOWS_MAP
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.guard import guard_of
from tokenbucket.core.limits.slot import SlotConfig

QUANTA = gcra.QUANTA_PER_NS
WORD = 2**64
TOLERANCE_NS = 2_000
"""Rounding error of 100 ms: a share has 24 bits, and times have units of 4 ns."""
SIZES = st.sampled_from([(64, 1), (257, 1), (600, 1), (FULL, 1), (9014, 7), (SUPER, SUPER_SEGMENTS)])
RATES = st.one_of(st.integers(8_000, 10**11), st.sampled_from([10**6, 10**7, 10**8, 10**9]))
UPTIMES_NS = st.integers(0, 2**56 - 2**48)
WORDS = st.one_of(st.integers(0, WORD - 1), st.sampled_from([0, 1, 2**63 - 1, 2**63, WORD - 1]))


def fair(max_delay_ns: int, **rates: int) -> SlotConfig:
    """Return a limit whose flows share it."""
    return delaying(max_delay_ns, longest_backlog_q=3 * max_delay_ns * QUANTA // 2, **rates)


@dataclass(frozen=True)
class Packet:
    """One packet that a property test offers."""

    gap_ns: int
    flow: int
    size: int
    segments: int


PACKETS = st.lists(
    st.builds(
        lambda gap, flow, size: Packet(gap, flow, *size),
        st.one_of(st.just(0), st.integers(0, 10**5), st.integers(0, 5 * MS), st.integers(0, 10**9)),
        st.integers(1, 6),
        SIZES,
    ),
    min_size=1,
    max_size=80,
)


@pytest.fixture
def many(machine: Machine) -> Machine:
    """Provide a machine with a slot that no flow has used."""
    machine.packet = frame(1)
    return machine


def offer(machine: Machine, now_ns: int, flow: int, size: int = FULL, segments: int = 1) -> int | None:
    """Offer a packet of a flow. Return its departure time, or None if it is dropped."""
    machine.packet = frame(flow)
    passes = machine.offer(now_ns, size, segments)
    return (machine.departs_ns or now_ns) if passes else None


def fifo_ns(machine: Machine, limit: SlotConfig, now_ns: int, size: int, segments: int) -> int:
    """Return the departure time in a FIFO queue: the time at which the packet conforms to the meters."""
    now_q, meters = now_ns * QUANTA % WORD, machine.slots.meters(machine.index)
    departs_q = 0
    for tat, burst_q, cost_q in (
        (meters.bytes_tat, limit.bytes_burst_q, gcra.bytes_cost_q(size, limit.bits_per_s)),
        (meters.packets_tat, limit.packets_burst_q, gcra.packets_cost_q(segments, limit.packets_per_s)),
    ):
        if cost_q:
            departs_q = max(departs_q, min(cost_q, burst_q) - gcra.tokens_q(tat, now_q, burst_q))
    return now_ns + departs_q // QUANTA


def corrupt(machine: Machine, words: list[int]) -> None:
    """Write arbitrary words to the state of the flows, as lost updates and an earlier owner leave them."""
    slots, index = machine.slots, machine.index
    meters = slots._raw_meters(index)
    meters.fair_top, meters.fair_others = words[0], words[-1]
    slots._write("tb_meters", index, bytes(meters))
    cells = itertools.islice(itertools.cycle(words), FLOWS_MAP.value_size // 8)
    slots._write(FLOWS, index, struct.pack(f"={FLOWS_MAP.value_size // 8}Q", *cells))


@EXAMPLES
@given(
    RATES,
    st.integers(64, 2**20),
    st.integers(5 * MS, 1000 * MS),
    STARTS_NS,
    PACKETS,
    st.lists(st.one_of(st.none(), RATES, st.lists(WORDS, min_size=3, max_size=9)), min_size=80, max_size=80),
    st.booleans(),
)
def test_no_packet_departs_later_than_in_a_fifo_queue(
    many: Machine,
    rate: int,
    burst: int,
    max_delay_ns: int,
    start_ns: int,
    packets: list[Packet],
    events: list[int | list[int] | None],
    by_packets: bool,  # noqa: FBT001 - a choice of hypothesis
) -> None:
    """Check any flows, sizes, rates, rate changes, lost updates, stale cells and clock."""

    def limit_at(bits: int) -> SlotConfig:
        more = {"packets_per_s": max(1, bits // 5000), "burst_packets": 3} if by_packets else {}
        return fair(max_delay_ns, bits_per_s=bits, burst_bytes=fitting_the_rate(bits, burst), **more)

    limit, now_ns = limit_at(rate), start_ns
    many.configure(limit)
    many.fill(start_ns)
    for packet, event in zip(packets, events, strict=False):
        now_ns += packet.gap_ns
        if isinstance(event, int):
            limit = limit_at(event)
            many.change(limit, now_ns)
        elif event:
            corrupt(many, event)
        latest_ns = fifo_ns(many, limit, now_ns, packet.size, packet.segments)
        departs_ns = offer(many, now_ns, packet.flow, packet.size, packet.segments)
        assert departs_ns is None or now_ns <= departs_ns <= latest_ns


@EXAMPLES
@given(RATES, st.integers(64, 2**20), st.integers(5 * MS, 1000 * MS), STARTS_NS, PACKETS)
def test_departures_of_one_flow_never_decrease(
    many: Machine, rate: int, burst: int, max_delay_ns: int, start_ns: int, packets: list[Packet]
) -> None:
    """Large packets leave in the order of their arrival. Small packets are not delayed and may overtake."""
    many.configure(fair(max_delay_ns, bits_per_s=rate, burst_bytes=fitting_the_rate(rate, burst)))
    many.fill(start_ns)
    now_ns, last_ns = start_ns, defaultdict[int, int](int)
    for packet in packets:
        now_ns += packet.gap_ns
        departs_ns = offer(many, now_ns, packet.flow, packet.size, packet.segments)
        if departs_ns is not None and packet.size > SMALL_BYTES:
            assert departs_ns >= last_ns[packet.flow]
            last_ns[packet.flow] = departs_ns


def test_a_flow_keeps_its_order_if_another_flow_grows(many: Machine) -> None:
    """A longer largest backlog makes the line flatter, so the same backlog waits for a shorter time."""
    many.configure(fair(1000 * MS, bits_per_s=10**7, burst_bytes=FULL))
    many.fill(NOW_NS)
    last_ns = {flow: offer(many, NOW_NS, flow) for _ in range(20) for flow in (1, 2, 3, 4)}
    assert offer(many, NOW_NS, 2, SUPER, SUPER_SEGMENTS)
    next_ns, before_ns = offer(many, NOW_NS, 1), last_ns[1]
    assert next_ns and before_ns and next_ns >= before_ns > NOW_NS + 50 * MS


@EXAMPLES
@given(
    st.sampled_from([10**6, 10**7, 10**8, 10**9]),
    st.integers(64, 2**18),
    st.integers(5 * MS, 200 * MS),
    PACKETS,
    st.lists(st.one_of(st.none(), st.lists(WORDS, min_size=3, max_size=9)), min_size=80, max_size=80),
)
def test_no_departures_exceed_the_bound(
    many: Machine,
    rate: int,
    burst: int,
    max_delay_ns: int,
    packets: list[Packet],
    events: list[list[int] | None],
) -> None:
    """In any time t: rate x t + burst + 2 x maxDelay x rate and two packets, for any state of the flows."""
    limit = fair(max_delay_ns, bits_per_s=rate, burst_bytes=burst)
    many.configure(limit)
    many.fill(NOW_NS)
    now_ns, departed = NOW_NS, list[tuple[int, int]]()
    for packet, event in zip(packets, events, strict=False):
        now_ns += packet.gap_ns
        if event:
            corrupt(many, event)
        departs_ns = offer(many, now_ns, packet.flow, packet.size, packet.segments)
        if departs_ns is not None:
            departed.append((departs_ns, packet.size))
    departed.sort()
    guard = guard_of(limit)
    assert guard
    host_side = byte_meter(rate, guard.burst_bytes)
    for departs_ns, size in departed:
        assert host_side.conforms(departs_ns, size), "the guard drops nothing"
        host_side.charge(departs_ns, size)
    once = burst + 2 * rate * max_delay_ns / (8 * 10**9) + SUPER + SMALL_BYTES
    for place, (first_ns, _) in enumerate(departed):
        total = 0
        for last_ns, size in departed[place:]:
            total += size
            assert total <= once + rate * (last_ns - first_ns) / (8 * 10**9)


@EXAMPLES
@given(RATES, st.integers(2000, 2**20), st.integers(5 * MS, 1000 * MS), UPTIMES_NS, PACKETS)
def test_every_departure_matches_exact_arithmetic(
    many: Machine, rate: int, burst: int, max_delay_ns: int, start_ns: int, packets: list[Packet]
) -> None:
    """The program decides as the model, and differs from exact arithmetic only by the rounding of a share.

    The clock does not wrap here: in the 39 hours before, the time 0 of an unused cell is in the future.
    """
    burst = fitting_the_rate(rate, burst)
    many.configure(fair(max_delay_ns, bits_per_s=rate, burst_bytes=burst))
    many.fill(start_ns)
    model, now_ns = FairModel(byte_meter(rate, burst), max_delay_ns), start_ns
    for packet in packets:
        now_ns += packet.gap_ns
        expected = model.look(now_ns, packet.flow, packet.size)
        departs_ns = offer(many, now_ns, packet.flow, packet.size, packet.segments)
        margin_ns = TOLERANCE_NS + expected.ahead_ns / 10**5
        if (departs_ns is not None) != model.passes(now_ns, packet.size, expected):
            early_ns = early_drop_limit(max_delay_ns, now_ns)
            assert abs(expected.wait_ns - early_ns) <= margin_ns
            return  # a wait exactly at the threshold may round to the other side
        if departs_ns is not None:
            assert abs(departs_ns - now_ns - expected.departs_ns) <= margin_ns
            model.charge(now_ns, packet.flow, packet.size, expected)


def rates_of(departed: dict[int, int], seconds: float) -> dict[int, float]:
    """Return bits per second by flow."""
    return {flow: size * 8 / seconds for flow, size in departed.items()}


def flood(machine: Machine, gaps_ns: dict[int, int], seconds: int = 2) -> dict[int, list[tuple[int, int]]]:
    """Offer packets of each flow at a steady pace. Return arrival and departure of the packets that pass."""
    arrivals = sorted(
        (NOW_NS + number * gap_ns, flow)
        for flow, gap_ns in gaps_ns.items()
        for number in range(seconds * 10**9 // gap_ns)
    )
    passed: dict[int, list[tuple[int, int]]] = {flow: [] for flow in gaps_ns}
    for now_ns, flow in arrivals:
        departs_ns = offer(machine, now_ns, flow)
        if departs_ns is not None:
            passed[flow].append((now_ns, departs_ns))
    return passed


def test_flows_that_send_too_much_share_the_rate(many: Machine) -> None:
    """Flows that send between one and four times their share all get the same rate."""
    rate = 10**7
    many.configure(fair(100 * MS, bits_per_s=rate, burst_bytes=10_000))
    many.fill(NOW_NS)
    packet_ns = FULL * 8 * 10**9 // rate
    passed = flood(many, {1: packet_ns // 4, 2: packet_ns, 3: packet_ns * 2, 4: packet_ns * 3})
    counts = [sum(departs >= NOW_NS + 10**9 for _, departs in each) for each in passed.values()]
    assert min(counts) > 0.9 * max(counts)


def test_many_flows_share_the_rate_although_some_share_a_cell(many: Machine) -> None:
    """Half of 64 flows send twice their share, and the others eight times."""
    rate, flows = 10**8, 64
    many.configure(fair(100 * MS, bits_per_s=rate, burst_bytes=10_000))
    many.fill(NOW_NS)
    share_ns = FULL * 8 * 10**9 * flows // rate
    passed = flood(many, {flow: share_ns // (2 if flow % 2 else 8) for flow in range(1, flows + 1)}, 1)
    counts = [len(each) for each in passed.values()]
    squares = sum(count**2 for count in counts)
    assert sum(counts) ** 2 / (len(counts) * squares) > 0.95
    assert min(counts) > sum(counts) / flows / 2


def test_a_flow_below_its_share_loses_nothing_beside_a_flood(many: Machine) -> None:
    """The flow also departs long before the backlog of the flood."""
    rate = 10**7
    many.configure(fair(100 * MS, bits_per_s=rate, burst_bytes=10_000))
    many.fill(NOW_NS)
    packet_ns = FULL * 8 * 10**9 // rate
    passed = flood(many, {1: packet_ns // 10, 2: packet_ns * 4})
    assert len(passed[2]) == len(range(2 * 10**9 // (packet_ns * 4)))
    waits = sorted(departs - arrives for arrives, departs in passed[2])
    assert waits[len(waits) * 99 // 100] <= 10 * MS
    flood_waits = sorted(departs - arrives for arrives, departs in passed[1])
    assert flood_waits[len(flood_waits) // 2] >= 50 * MS


def test_a_lone_flow_departs_as_from_a_fifo_queue(many: Machine) -> None:
    """Compare to the nanosecond, with small packets among the large ones."""
    limit = fair(100 * MS, bits_per_s=10**7, burst_bytes=20_000)
    many.configure(limit)
    many.fill(NOW_NS)
    for step in range(300):
        now_ns = NOW_NS + step * 700_000
        size = 64 if step % 5 == 0 else FULL
        latest_ns = fifo_ns(many, limit, now_ns, size, 1)
        departs_ns = offer(many, now_ns, 1, size)
        if departs_ns is not None:
            assert departs_ns == (now_ns if size == 64 else latest_ns)


@pytest.mark.parametrize("uptime_days", [1, 418, 600, 800])
def test_the_first_packet_of_a_slot_waits_for_no_other_flow_at_any_uptime(
    many: Machine, uptime_days: int
) -> None:
    """After 417 days of uptime, the time 0 of an unused cell is half of the clock's range ahead."""
    start_ns = uptime_days * 86_400 * 10**9
    many.configure(fair(100 * MS, bits_per_s=10**7, burst_bytes=10_000))
    many.fill(start_ns)
    bulk_ns = [offer(many, start_ns, 1) for _ in range(40)]
    assert bulk_ns[-1] and bulk_ns[-1] > start_ns + 30 * MS
    assert [offer(many, start_ns, flow) for flow in range(2, 7)] == [start_ns] * 5


@pytest.mark.parametrize(
    "rates",
    [
        {"bits_per_s": 10**7, "burst_bytes": 10_000},
        {"packets_per_s": 825, "burst_packets": 7},
        {"bits_per_s": 10**7, "burst_bytes": 10_000, "packets_per_s": 825, "burst_packets": 7},
    ],
    ids=["bits", "packets", "both"],
)
def test_a_request_of_several_packets_departs_at_once_with_any_meter(
    many: Machine, rates: dict[str, int]
) -> None:
    """The credit of an idle flow is as long with a packet rate as with a bit rate."""
    many.configure(fair(100 * MS, **rates))
    many.fill(NOW_NS)
    packet_ns = FULL * 8 * 100
    flood(many, dict.fromkeys(range(1, 9), packet_ns * 4), seconds=1)
    now_ns = NOW_NS + 10**9
    assert [offer(many, now_ns, 9) for _ in range(6)] == [now_ns] * 6
    last_ns = [offer(many, now_ns, 9) for _ in range(3)][-1]
    assert last_ns and last_ns > now_ns + 4 * packet_ns, "a longer request waits for its share"


def test_forged_flows_gain_no_more_than_the_bound(many: Machine) -> None:
    """In this flood, each packet is a new flow and departs at once, until the backlog reaches its limit."""
    rate, delay_ns, burst = 10**7, 40 * MS, 20_000
    many.configure(fair(delay_ns, bits_per_s=rate, burst_bytes=burst))
    many.fill(NOW_NS)
    count, step_ns, admitted = 3000, 100_000, 0
    for number in range(count):
        admitted += FULL * (offer(many, NOW_NS + number * step_ns, number + 1) is not None)
        once = burst + 3 * rate * delay_ns // (16 * 10**9) + SUPER
        assert admitted <= once + number * step_ns * rate / (8 * 10**9)
    assert admitted >= count * step_ns * rate / (8 * 10**9) * 0.95


@pytest.mark.parametrize(
    "words", [[WORD - 1], [2**63], [NOW_NS * QUANTA + 2**60], [1, 2, 2**40], [0] + [2**40] * 511]
)
def test_stale_cells_stop_no_flow(many: Machine, words: list[int]) -> None:
    """After any earlier owner, packets wait at most as in a FIFO queue, and the cells recover."""
    rate = 10**7
    many.configure(fair(100 * MS, bits_per_s=rate, burst_bytes=10_000))
    many.fill(NOW_NS)
    corrupt(many, words)
    packet_ns = FULL * 8 * 10**9 // rate
    passed = flood(many, {1: packet_ns // 4, 2: packet_ns // 2, 3: packet_ns * 8})
    late = {flow: sum(departs >= NOW_NS + 10**9 for _, departs in each) for flow, each in passed.items()}
    assert late[1] < 1.2 * late[2]
    assert late[2] < 1.2 * late[1]
    assert late[3] >= 10**9 // (packet_ns * 8) - 1
    waits = [departs - arrives for arrives, departs in passed[3] if arrives >= NOW_NS + 10**9]
    assert max(waits) <= 20 * MS, "a stale tag is a debt of one backlog, not more"


def test_a_new_owner_has_no_flows(many: Machine) -> None:
    """The flows of the slot's last owner delay no packet."""
    limit = fair(100 * MS, bits_per_s=10**7, burst_bytes=10_000)
    many.configure(limit)
    corrupt(many, [2**62 + 1])
    many.configure(limit)
    size = FLOWS_MAP.value_size
    flows = layout.Flows.from_buffer_copy(syscall.lookup(many.slots._fds[FLOWS], many.index, size, FLOWS))
    assert not any(cell.tag or cell.departs for cell in flows.cells)
    meters = many.slots._raw_meters(many.index)
    assert (meters.fair_top, meters.fair_others) == (0, 0)


@pytest.mark.parametrize("observe", [False, True])
def test_observe_and_enforce_count_the_same(many: Machine, observe: bool) -> None:  # noqa: FBT001
    """Observe mode counts the packets of sharing flows that Enforce mode delays or drops."""
    counts = []
    for mode in (False, observe):
        limit = fair(25 * MS, bits_per_s=10**7, burst_bytes=10_000)
        many.configure(SlotConfig(**{**_fields(limit), "observe": mode}))
        many.fill(NOW_NS)
        flood(many, {1: 200_000, 2: 900_000, 3: 5 * MS}, seconds=1)
        stats = many.slots.stats(many.index)
        counts.append((stats.conform_packets, stats.delayed_packets, stats.exceed_packets))
    assert counts[0] == counts[1]


def _fields(limit: SlotConfig) -> dict[str, object]:
    return {name: getattr(limit, name) for name in limit.__dataclass_fields__}


def test_cpus_charge_every_packet_of_all_flows(many: Machine) -> None:
    """Several CPUs send flows into one slot. The charges equal the admitted packets, and no excess passes."""
    rate, burst, max_delay_ns, repeat = 2 * 10**9, 100 * FULL, 50 * MS, 20_000
    limit = fair(max_delay_ns, bits_per_s=rate, burst_bytes=burst)
    skb = context(NOW_NS, mark=many.index, ingress_ifindex=3, wire_len=FULL)
    cost_q = gcra.bytes_cost_q(FULL, rate)
    for _ in range(5):
        many.configure(limit)
        many.fill(NOW_NS)
        with ThreadPoolExecutor(4) as pool:
            runs = [
                pool.submit(run_program, many.program_fd, frame(flow), skb, repeat) for flow in range(1, 5)
            ]
            assert all(run.result() for run in runs)
        stats = many.slots.stats(many.index)
        passed = stats.conform_packets + stats.delayed_packets
        word = many.slots.meters(many.index).bytes_tat
        left_q = gcra.tokens_q(word, gcra.word_of(NOW_NS), limit.bytes_burst_q)
        assert left_q == limit.bytes_burst_q - passed * cost_q
        assert passed * cost_q <= limit.bytes_burst_q + 3 * max_delay_ns * QUANTA // 2 + cost_q
        assert stats.seen_packets == 4 * repeat
