"""The program's decisions against exact arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.model import QUANTUM_NS, Model, byte_meter, packet_meter
from tests.bpf.test_layout import probe
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
"""From the first instant after boot to 3 years of uptime, and where the clock in quanta wraps."""
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def arrivals(amounts: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Lists of (gap in ns, amount)."""
    return st.lists(st.tuples(GAPS_NS, amounts), min_size=1, max_size=40)


def fitting_the_rate(bits_per_s: int, burst_bytes: int) -> int:
    """A burst as the API admits it: at most a day of the rate."""
    return min(burst_bytes, bits_per_s // 8 * 86_400)


@EXAMPLES
@given(RATES_BITS, st.integers(64, 2**24), STARTS_NS, arrivals(SIZES_BYTES))
def test_byte_meter_decides_as_the_model(
    machine: Machine, rate: int, burst: int, start_ns: int, packets: list[tuple[int, int]]
) -> None:
    """Any rate, burst, size, idle gap and uptime: the very same decisions."""
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
    """Packets are segments: a GSO packet counts each."""
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
    """A packet that one meter refuses costs the other nothing."""
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
    """The quantum is fine enough: rounding never adds up."""
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


def test_the_quantum_is_what_the_model_takes() -> None:
    """The model and the program must mean the same quantum."""
    assert QUANTUM_NS * gcra.QUANTA_PER_NS == 1


def test_what_costs_most_is_charged_nine_minutes_and_never_less(tmp_path: Path) -> None:
    """Up to the largest amounts at the lowest rates: products that do not fit 64 bits would cost nothing."""
    of_bytes, of_packets = gcra.bytes_scale(8000), gcra.packets_scale(1)
    amounts = [1 << 19, 1 << 20, 55 << 16, 1 << 22, 1 << 32]
    costs = probe(
        tmp_path,
        *(f"tb_bytes_cost({amount}ULL, {of_bytes}ULL)" for amount in amounts),
        *(f"tb_packets_cost({amount}ULL, {of_packets}ULL)" for amount in (1, 549, 550, 1 << 16, 1 << 20)),
    )
    most = 1 << 47
    assert costs == [
        gcra.bytes_cost_q(1 << 19, 8000),
        *[most] * 4,
        gcra.QUANTA_PER_S,
        549 * gcra.QUANTA_PER_S,
        *[most] * 3,
    ]
