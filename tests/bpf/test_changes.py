"""Changes of a limit under traffic admit no excess, and leave no packet without a limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bpf.bucket_machine import Machine, config, context
from tests.bpf.program_run import run_program
from tests.bpf.test_peers import ALICE, BOB, FULL, MBIT, MS, NOW_NS, A, Address, B, frame, peers
from tokenbucket.bpf import codec
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT, SlotConfig

SLOW, FAST = 8 * MBIT, 32 * MBIT
BURST_S = 1 / 32
CHANGES, CHANGE_NS = 1000, MS // 2
SENDERS = (A, B, ALICE, BOB)
FLOOD = {"size_bytes": FULL, "at_once": 64}
TRICKLE = {"size_bytes": 100, "at_once": 1}
"""6.4 Mbit/s and 8,000 packets/s from all senders together: every limit in this file admits them."""


def limit(bits_per_s: int, packets_per_s: int = 10**6, **action: object) -> SlotConfig:
    """Return a limit with bursts of ``BURST_S`` at both rates.
    The default packet rate is far above the traffic.
    """
    bursts = int(bits_per_s * BURST_S / 8), int(packets_per_s * BURST_S)
    return config(bits_per_s, bursts[0], packets_per_s, bursts[1], **action)  # type: ignore[arg-type]


def delay(milliseconds: int) -> dict[str, object]:
    return {"max_delay_q": milliseconds * MS * gcra.QUANTA_PER_NS}


PER_PEER = {"per_peer": peers(SLOW, SLOW // 80)}
PER_WIDER_PEER = {"per_peer": peers(SLOW, SLOW // 80, ipv4_prefix_length=24, ipv6_prefix_length=48)}
ACTIONS: dict[str, dict[str, object]] = {
    "Drop": {},
    "Delay": delay(40),
    "shorter Delay": delay(10),
    "Mark": {"dscp": 10},
    "other Mark": {"dscp": 46},
    "Observe": {"observe": True},
    "Delay, observed": {**delay(40), "observe": True},
    "per peer": PER_PEER,
    "per wider peer": PER_WIDER_PEER,
    "Delay per peer": {**delay(40), **PER_PEER},
}
LIMITS: dict[str, list[SlotConfig]] = {
    **{
        f"rate and burst, {name}": [limit(SLOW, **each), limit(FAST, **each)]
        for name, each in ACTIONS.items()
    },
    "packet rate and burst": [limit(1000 * MBIT, 10_000), limit(1000 * MBIT, 40_000)],
    "maxDelay": [limit(SLOW, **delay(40)), limit(SLOW, **delay(10))],
    "dscp": [limit(SLOW, dscp=10), limit(SLOW, dscp=46)],
    "Mark and Observe": [limit(SLOW, dscp=10), limit(SLOW, observe=True)],
    "prefix lengths": [limit(SLOW, **PER_PEER), limit(SLOW, **PER_WIDER_PEER)],
    "all": [limit(rate, **each) for each in ACTIONS.values() for rate in (SLOW, FAST)],
}
CHANGING = pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)


def changed(machine: Machine, limits: list[SlotConfig], size_bytes: int, at_once: int) -> Iterator[set[int]]:
    """Change between all pairs of limits, one change per clock step, while all senders send.

    After each change, yield the code points of the last packets.
    """
    machine.configure(limits[0])
    machine.fill(NOW_NS)
    walk = itertools.chain.from_iterable(itertools.combinations(limits, 2))
    with ThreadPoolExecutor(2) as pool:
        for step, each in enumerate(itertools.islice(itertools.cycle(walk), CHANGES), start=1):
            skb = context(
                NOW_NS + step * CHANGE_NS,
                mark=machine.index,
                ingress_ifindex=1,
                wire_len=size_bytes,
                gso_segs=1,
            )
            sent = [pool.submit(send, machine, peer, size_bytes, skb, at_once) for peer in SENDERS]
            machine.change(each, NOW_NS + step * CHANGE_NS)
            yield {run.result() for run in sent}


def send(machine: Machine, peer: Address, size_bytes: int, skb: bytes, count: int) -> int:
    """Send one packet ``count`` times. Return the code point of the last copy."""
    left = run_program(machine.program_fd, frame(peer)[:size_bytes], skb, count).packet
    return int.from_bytes(left[14:16]) >> (2 if peer.version == 4 else 6) & 0x3F


@CHANGING
def test_successive_changes_admit_no_excess(machine: Machine, limits: list[SlotConfig]) -> None:
    """Conforming and delayed traffic stays within the higher rate x time + burst, and reaches the lower rate.

    Drops and marks occur only if a limit drops or marks.
    """
    bits_per_s = max(one.bits_per_s for one in limits)
    packets_per_s = max(one.packets_per_s for one in limits)
    least_bits_per_s = min(min(one.bits_per_s, one.packets_per_s * 8 * FULL) for one in limits)
    once_s = BURST_S + max(one.max_delay_q for one in limits) / gcra.QUANTA_PER_NS / 10**9
    code_points = {one.dscp or 0 for one in limits}
    without_limit = machine.slots.stats(NO_SLOT).unmetered_packets
    lasted_s = 0.0
    for left in changed(machine, limits, **FLOOD):
        lasted_s += CHANGE_NS / 10**9
        stats = machine.slots.stats(machine.index)
        passed = stats.conform_bytes + stats.delayed_bytes
        assert 8 * passed <= bits_per_s * (lasted_s + once_s) + 8 * 2 * FULL
        assert passed / FULL <= packets_per_s * (lasted_s + once_s) + 2
        assert 8 * passed >= least_bits_per_s * lasted_s
        assert left <= code_points
    assert CHANGES / lasted_s >= 1000
    assert machine.slots.stats(NO_SLOT).unmetered_packets == without_limit
    assert bool(stats.dropped_packets) is any(one.dscp is None and not one.observe for one in limits)


@CHANGING
def test_a_change_drops_no_packet_that_both_limits_admit(machine: Machine, limits: list[SlotConfig]) -> None:
    """Below the lower rate, each packet conforms, also if it reads a partly written configuration."""
    steps = sum(1 for _ in changed(machine, limits, **TRICKLE))
    stats = machine.slots.stats(machine.index)
    assert (stats.conform_packets, stats.exceed_packets) == (steps * len(SENDERS), 0)


SUPER_BYTES, SMALL = 1 << 16, 200


def flooded(machine: Machine, limit: SlotConfig, size_bytes: int) -> None:
    """Offer packets of that size until the bucket rejects one."""
    machine.configure(limit)
    machine.fill(NOW_NS)
    stats = machine.slots.stats(machine.index)
    while not stats.exceed_packets - stats.delayed_packets:
        machine.offer(NOW_NS, size_bytes)
        stats = machine.slots.stats(machine.index)


@pytest.mark.parametrize("size_bytes", [SUPER_BYTES, SMALL])
@pytest.mark.parametrize(
    ("before", "after", "within_ms"),
    [
        (config(8_000, FULL), config(1000 * MBIT, FULL), 2),
        (config(8_000, FULL, **delay(1000)), config(1000 * MBIT, FULL, **delay(10)), 12),
        (config(8_000, FULL, **delay(1000), observe=True), config(1000 * MBIT, FULL, **delay(10)), 12),
        (config(100 * MBIT, FULL, **delay(10)), config(8_000, FULL, **delay(10)), 20),
        (config(100 * MBIT, FULL, **delay(10)), config(MBIT, FULL), 25),
        (config(1000 * MBIT, FULL, 1, 1), config(1000 * MBIT, FULL, 10**6, 1), 2),
    ],
    ids=["Drop", "Delay", "Observe to Delay", "Delay, down", "Delay to Drop, down", "packets"],
)
def test_a_rate_change_does_not_block_small_packets(
    machine: Machine, before: SlotConfig, after: SlotConfig, within_ms: int, size_bytes: int
) -> None:
    """A change rescales the debt, up and down.
    Otherwise, a minute of debt at a slow rate would block a fast rate.
    """
    flooded(machine, before, size_bytes)
    machine.change(after, NOW_NS)
    assert machine.offer(NOW_NS + within_ms * MS, 64)


def test_queued_packets_depart_before_packets_at_a_higher_rate(machine: Machine) -> None:
    """Queued packets keep their departure times. Later packets must not overtake them."""
    machine.configure(config(MBIT, FULL, **delay(40)))
    machine.fill(NOW_NS)
    departures_ns = []
    while machine.offer(NOW_NS, FULL):
        departures_ns.append(machine.departs_ns)
    machine.change(config(1000 * MBIT, FULL, **delay(40)), NOW_NS)
    assert machine.offer(NOW_NS + 30 * MS, FULL)
    assert machine.departs_ns >= departures_ns[-1] > NOW_NS


DEBTORS = {
    "burst below a packet, Drop": [config(FAST, FULL), config(SLOW, FULL)],
    "burst below a packet, Delay": [config(FAST, FULL, **delay(40)), config(SLOW, FULL, **delay(40))],
}


@pytest.mark.parametrize(
    ("size_bytes", "at_once"), [(SUPER_BYTES, 2), (SMALL, 100)], ids=["super-packets", "small packets"]
)
@pytest.mark.parametrize("limits", (LIMITS | DEBTORS).values(), ids=LIMITS | DEBTORS)
def test_repeated_changes_cancel_no_debt(
    machine: Machine, limits: list[SlotConfig], size_bytes: int, at_once: int
) -> None:
    """Repeated changes give no tokens to packets larger than the burst, or to packets without a delay."""
    bits_per_s = max(one.bits_per_s for one in limits)
    once_s = BURST_S + 1.5 * max(one.max_delay_q for one in limits) / gcra.QUANTA_PER_S
    machine.configure(limits[0])
    machine.fill(NOW_NS)
    walk = itertools.cycle(itertools.chain.from_iterable(itertools.combinations(limits, 2)))
    for step in range(1, CHANGES + 1):
        now_ns = NOW_NS + step * CHANGE_NS
        machine.change(next(walk), now_ns)
        skb = context(now_ns, mark=machine.index, ingress_ifindex=1, wire_len=size_bytes, gso_segs=1)
        send(machine, SENDERS[step % 4], min(size_bytes, FULL), skb, at_once)
        stats = machine.slots.stats(machine.index)
        passed = stats.conform_bytes + stats.delayed_bytes
        assert 8 * passed <= bits_per_s * (step * CHANGE_NS / 10**9 + once_s) + 8 * 2 * SUPER_BYTES


KINDS = {
    "bits": config(8000 * MBIT, 10**6),
    "packets": config(packets_per_s=10**6, burst_packets=1000),
    "peers alone": config(per_peer=peers(8000 * MBIT, 10**6)),
    "peers' packets alone": config(per_peer=peers(packets_per_s=10**6, burst_packets=1000)),
}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(KINDS, 2)))
def test_no_packet_is_unmetered_while_a_limit_changes_its_meters(
    machine: Machine, one: str, other: str
) -> None:
    """The program reads a configuration word by word while user space writes another one."""
    machine.packet = frame(A)
    machine.configure(KINDS[one])
    before = machine.slots.stats(NO_SLOT).unmetered_packets
    skb = context(NOW_NS, mark=machine.index, ingress_ifindex=1, wire_len=FULL)
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(run_program, machine.program_fd, machine.packet, skb, 5_000_000)
        while not flood.done():
            for kind in (other, one):
                machine.change(KINDS[kind], NOW_NS)
        assert flood.result()
    assert machine.slots.stats(NO_SLOT).unmetered_packets == before


def test_intermediate_configurations_set_every_field_that_a_flag_uses() -> None:
    """Otherwise, the program could mark a packet with code point 0, or delay a packet by 0 ns."""
    mark, delayed = limit(SLOW, dscp=10), limit(SLOW, **delay(40), **PER_PEER)
    for before, after in itertools.permutations((mark, delayed, KINDS["packets"], SlotConfig()), 2):
        values = [bytes(codec.encode_config(each)) for each in (before, after)]
        steps = [codec.decode_config(value) for value in codec.config_steps(*values)]
        assert steps[-1] == after
        for step in steps:
            assert step.dscp in (None, 10)
            assert step.max_delay_q in (0, delayed.max_delay_q)
            assert step.per_peer in (None, delayed.per_peer)
            if SlotConfig() not in (before, after):
                assert step.bits_per_s or step.packets_per_s
