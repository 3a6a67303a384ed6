"""Any sequence of limits admits no more than the highest rate and the largest burst."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.test_exactness import EXAMPLES, fitting_the_rate
from tests.bpf.test_peers import ALICE, BOB, A, Address, B, frame, peers
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import SlotConfig

START_NS = 10**15
MOST_BYTES, MOST_SEGMENTS = 65_536, 45
CYCLES = 15
MILLISECOND_Q = 10**6 * gcra.QUANTA_PER_NS


class Step(NamedTuple):
    """A change to a limit, and a packet some time later."""

    limit: int
    gap_ns: int
    size_bytes: int
    segments: int
    sender: Address


@st.composite
def limits(draw: st.DrawFn) -> SlotConfig:
    """Return a limit of bits and packets, with Drop or Delay, and with or without peers."""
    bits, packets = draw(st.integers(8_000, 10**6) | st.integers(10**6, 10**10)), draw(st.integers(1, 10**7))
    burst = fitting_the_rate(bits, draw(st.integers(64, 1514) | st.integers(64, 2**22)))
    per_peer = peers(bits, burst) if draw(st.booleans()) else None
    delay_q = draw(st.just(0) | st.integers(1, 500)) * MILLISECOND_Q
    return config(bits, burst, packets, draw(st.integers(1, 1000)), max_delay_q=delay_q, per_peer=per_peer)


STEPS = st.builds(
    lambda limit, gap_ns, packet, sender: Step(limit, gap_ns, *packet, sender),
    st.integers(0, 2),
    st.integers(0, 10**6) | st.integers(0, 10**8) | st.integers(0, 10**11),
    st.tuples(st.integers(60, 1514), st.just(1)) | st.just((MOST_BYTES, MOST_SEGMENTS)),
    st.sampled_from([A, B, ALICE, BOB]),
)


SLOW, FAST = (config(rate, 64, 10**7, 1000) for rate in (10**6, 2 * 10**6))
BACK_AND_FORTH = [Step(limit, 10**6, MOST_BYTES, MOST_SEGMENTS, A) for limit in (0, 1)]
"""Cancels debts if a change to a higher rate fills the bucket."""


@EXAMPLES
@example([SLOW, FAST, FAST], BACK_AND_FORTH)
@given(st.lists(limits(), min_size=3, max_size=3), st.lists(STEPS, min_size=1, max_size=6))
def test_no_sequence_of_limits_admits_more_than_its_largest(
    machine: Machine, limits: list[SlotConfig], steps: list[Step]
) -> None:
    """Repeat the steps, and check bits and packets after each one."""
    machine.configure(limits[steps[0].limit])
    machine.fill(START_NS)
    used = [limits[step.limit] for step in steps]
    bits_per_s = max(limit.bits_per_s for limit in used)
    packets_per_s = max(limit.packets_per_s for limit in used)
    burst_bits = max(gcra.bytes_in(limit.bytes_burst_q, limit.bits_per_s) for limit in used) * 8
    burst_packets = max(gcra.packets_in(limit.packets_burst_q, limit.packets_per_s) for limit in used)
    delay_s = Fraction(3 * max(limit.max_delay_q for limit in used), 2 * gcra.QUANTA_PER_S)
    now_ns = START_NS
    for step in steps * CYCLES:
        machine.change(limits[step.limit], now_ns)
        now_ns += step.gap_ns
        machine.packet = frame(step.sender)
        machine.offer(now_ns, step.size_bytes, step.segments)
        stats = machine.slots.stats(machine.index)
        time_s = Fraction(now_ns - START_NS, 10**9) + delay_s
        bits = 8 * (stats.conform_bytes + stats.delayed_bytes)
        assert bits <= bits_per_s * time_s + burst_bits + 8 * 2 * MOST_BYTES
        packets = stats.conform_packets + stats.delayed_packets
        assert packets <= packets_per_s * time_s + burst_packets + 2 * MOST_SEGMENTS
