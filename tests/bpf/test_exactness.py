"""The program's decisions against exact arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.model import QUANTUM_NS, Model, byte_meter, packet_meter
from tests.bpf.test_layout import probe
from tests.generated import inputs
from tokenbucket.core.limits import gcra

RATES_BITS = st.one_of(
    st.integers(8_000, 10**12), st.sampled_from([8_000, 10**6, 10**8, 10**9, 10**10, 10**11, 10**12])
)
SIZES_BYTES = st.one_of(st.integers(60, 1514), st.sampled_from([60, 64, 512, 1514, 9014, 65_536]))
GAPS_NS = st.one_of(
    st.just(0),
    st.integers(0, 10),
    st.integers(0, 10**6),
    st.integers(0, 10**10),
    st.integers(0, 4 * 3600 * 10**9),
)
STARTS_NS = st.one_of(
    st.just(0),
    st.integers(0, 10**9),
    st.integers(0, 10**17),
    st.integers(2**56 - 10**6, 2**56 + 10**6),
)
"""Times from the first instant after boot to 3 years of uptime, and times at which the quanta clock wraps."""
EXAMPLES = inputs(150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrivals(amounts: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Generate lists of (gap in ns, amount)."""
    return st.lists(st.tuples(GAPS_NS, amounts), min_size=1, max_size=40)


def fitting_the_rate(bits_per_s: int, burst_bytes: int) -> int:
    """Limit a burst as the API does: to one day of the rate."""
    return min(burst_bytes, bits_per_s // 8 * 86_400)


@EXAMPLES
@given(RATES_BITS, st.integers(64, 2**24), STARTS_NS, arrivals(SIZES_BYTES))
def test_byte_meter_decides_as_the_model(
    machine: Machine, rate: int, burst: int, start_ns: int, packets: list[tuple[int, int]]
) -> None:
    """The decisions are equal for any rate, burst, size, idle gap and uptime."""
    burst = fitting_the_rate(rate, burst)
    machine.configure(config(bits_per_s=rate, burst_bytes=burst))
    machine.fill(start_ns)
    model = Model(byte_meter(rate, burst))
    now_ns = start_ns
    for gap_ns, size in packets:
        now_ns += gap_ns
        assert machine.offer(now_ns, size) == model.offer(now_ns, size)


@EXAMPLES
@given(
    st.integers(1, 10**9),
    st.integers(1, 10**6),
    STARTS_NS,
    arrivals(st.one_of(st.just(1), st.integers(1, 64))),
)
def test_packet_meter_decides_as_the_model(
    machine: Machine, rate: int, burst: int, start_ns: int, packets: list[tuple[int, int]]
) -> None:
    """Count packets on the wire: a GSO packet counts once per segment."""
    burst = min(burst, rate * 86_400)
    machine.configure(config(packets_per_s=rate, burst_packets=burst))
    machine.fill(start_ns)
    model = Model(packets=packet_meter(rate, burst))
    now_ns = start_ns
    for gap_ns, segments in packets:
        now_ns += gap_ns
        assert machine.offer(now_ns, 1514, segments) == model.offer(now_ns, 1514, segments)


@EXAMPLES
@given(
    RATES_BITS,
    st.integers(64, 2**22),
    st.integers(1, 10**7),
    st.integers(1, 10**4),
    STARTS_NS,
    arrivals(SIZES_BYTES),
)
def test_both_meters_charge_together_or_not_at_all(
    machine: Machine,
    rate: int,
    burst: int,
    packet_rate: int,
    packet_burst: int,
    start_ns: int,
    packets: list[tuple[int, int]],
) -> None:
    """If one meter rejects a packet, the other meter is not charged."""
    burst, packet_burst = fitting_the_rate(rate, burst), min(packet_burst, packet_rate * 86_400)
    machine.configure(config(rate, burst, packet_rate, packet_burst))
    machine.fill(start_ns)
    model = Model(byte_meter(rate, burst), packet_meter(packet_rate, packet_burst))
    now_ns = start_ns
    for gap_ns, size in packets:
        now_ns += gap_ns
        assert machine.offer(now_ns, size) == model.offer(now_ns, size)


@pytest.mark.parametrize(
    ("bits_per_s", "size_bytes", "gap_ns"),
    [
        (100 * 10**9, 60, 3),
        (100 * 10**9, 1514, 70),
        (10**12, 65_536, 300),
        (10**9, 60, 300),
        (8_000, 1514, 10**9),
    ],
)
def test_admitted_total_is_the_exact_one_within_a_thousandth(
    machine: Machine, bits_per_s: int, size_bytes: int, gap_ns: int
) -> None:
    """The quantum is fine enough that rounding errors do not accumulate."""
    burst_bytes = 4 * 65_536
    machine.configure(config(bits_per_s=bits_per_s, burst_bytes=burst_bytes))
    start_ns = 10**9
    machine.fill(start_ns)
    exact = Model(byte_meter(bits_per_s, burst_bytes, quantum_ns=None))
    admitted = 0
    for number in range(30_000):
        now_ns = start_ns + number * gap_ns
        exact.offer(now_ns, size_bytes)
        admitted += size_bytes * machine.offer(now_ns, size_bytes)
    assert exact.admitted_bytes < 30_000 * size_bytes, "the offered load must exceed the rate"
    assert admitted == pytest.approx(exact.admitted_bytes, rel=0.001)


def test_the_model_and_the_program_use_the_same_quantum() -> None:
    """The model and the program use a quantum of the same size."""
    assert QUANTUM_NS * gcra.QUANTA_PER_NS == 1


def test_the_costs_of_the_largest_packets_are_exact(tmp_path: Path) -> None:
    """Charge 65,535 segments at 1 packet/s, and 64 MB at 8 kbit/s: more than any packet has on the wire."""
    of_bytes, of_packets = gcra.bytes_scale(8000), gcra.packets_scale(1)
    sizes = [1 << 19, (1 << 22) - 1, 1 << 22, (1 << 22) + 1, 10**6 + (5 << 22), 1 << 26]
    packets = [1, 724, 8192, 65_535]
    costs = probe(
        tmp_path,
        *(f"tb_bytes_cost({amount}ULL, {of_bytes}ULL)" for amount in sizes),
        *(f"tb_packets_cost({amount}ULL, {of_packets}ULL)" for amount in packets),
    )
    assert costs == [
        *(gcra.bytes_cost_q(amount, 8000) for amount in sizes),
        *(gcra.packets_cost_q(amount, 1) for amount in packets),
    ]


@pytest.mark.parametrize("segments", [724, 65_535])
def test_gso_packets_at_one_packet_per_second_get_the_rate(machine: Machine, segments: int) -> None:
    """A debt of hours stays a debt. In ten days, at most the rate, the burst and one GSO packet pass."""
    machine.configure(config(packets_per_s=1, burst_packets=1))
    start_ns, minute_ns = 10**15, 60 * 10**9
    machine.fill(start_ns)
    admitted = 0
    for minute in range(14_400):
        admitted += segments * machine.offer(
            start_ns + minute * minute_ns, 65_536, segments, gso_size=1, gso_segs=segments
        )
        assert admitted <= minute * 60 + 1 + segments
    assert admitted > 14_400 * 60 * 0.9 - segments


def test_a_cost_that_does_not_fit_is_the_largest(tmp_path: Path) -> None:
    """Without saturation, a product above 64 bits would wrap to a small cost."""
    of_bytes, of_packets = gcra.bytes_scale(8000), gcra.packets_scale(1)
    costs = probe(
        tmp_path,
        *(f"tb_bytes_cost({amount}ULL, {of_bytes}ULL)" for amount in (1 << 27, 1 << 32)),
        *(f"tb_packets_cost({amount}ULL, {of_packets}ULL)" for amount in (1 << 18, 1 << 32)),
    )
    assert costs == [1 << 54] * 4
