"""The record of offered traffic: percentiles, bounds of the excess, and memory."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.generated import inputs
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.offered import SAMPLE_S, Offered
from tokenbucket.core.limits.offered_report import BURSTS_S, OfferedReport
from tokenbucket.core.limits.suggestion import ROOM_BYTES

SECOND = [SAMPLE_S] * 10
Packets = list[tuple[float, int]]
"""The packets of one sample: times within the sample, and sizes."""

_PLACES = st.sampled_from([0.0, 0.01, 0.5, 0.99])
_SAMPLES = st.lists(st.tuples(_PLACES, st.integers(60, 65_000)), max_size=4)
_PHASES = st.lists(
    st.tuples(_SAMPLES, st.integers(1, 20), st.sampled_from([0.05, 0.1, 0.13, 0.3])), min_size=1, max_size=8
)
"""Samples that repeat, with their duration."""
_LOOKS = st.sampled_from([1, 3, 1000])


def record(samples: list[tuple[Packets, float]], look_every: int = 1000) -> Offered:
    """Record in steps. Each report charges the earlier samples, and follows other rates."""
    offered = Offered()
    for number, window in enumerate(batched(samples), 1):
        offered.add(
            [sum(size for _, size in packets) for packets, _ in window], [time_s for _, time_s in window]
        )
        if number % look_every == 0:
            offered._charge()
    return offered


def batched(samples: list[Any], count: int = 7) -> Iterator[list[Any]]:
    """Add samples as the agent does, or in batches of another size."""
    for first in range(0, len(samples), count):
        yield samples[first : first + count]


def steady(size_bytes: int, seconds: int) -> Offered:
    offered = Offered()
    for _ in range(seconds):
        offered.add([size_bytes] * 10, SECOND)
    return offered


def report_of(offered: Offered) -> OfferedReport:
    report = offered.report()
    assert report
    return report


def replay(
    samples: list[tuple[Packets, float]], rate: int, burst_bytes: int, most_wait_s: float = 0.0
) -> tuple[int, int]:
    """Return the bytes that an exact bucket, full before the first packet, rejects and delays."""
    burst_q, most_wait_q = gcra.bytes_time_q(burst_bytes, 8 * rate), most_wait_s * gcra.QUANTA_PER_S
    tat, begin_s, rejected, waiting = gcra.never_used(0), 0.0, 0, 0
    for packets, elapsed_s in samples:
        for place, size in sorted(packets):
            now_q = round((begin_s + place * elapsed_s) * gcra.QUANTA_PER_S)
            cost_q = gcra.bytes_cost_q(size, 8 * rate)
            tokens_q = gcra.tokens_q(tat, now_q, burst_q)
            if gcra.case_of(tat, now_q, cost_q, burst_q) is gcra.Case.TOO_FAST:
                if not most_wait_s or -tokens_q > most_wait_q:
                    rejected += size
                    continue
                waiting += size
            tat = (now_q - tokens_q + cost_q) % 2**64
        begin_s += elapsed_s
    return rejected, waiting


def some_rates(report: OfferedReport | None) -> list[int]:
    rates = list(report.bounds) if report else []
    return rates[:3] + rates[-1:]


def repeated(phases: list[tuple[Packets, int, float]]) -> list[tuple[Packets, float]]:
    return [(packets, elapsed_s) for packets, times, elapsed_s in phases for _ in range(times)]


@inputs(60)
@given(_PHASES, _LOOKS)
def test_the_prediction_is_at_least_the_excess_of_an_exact_bucket(
    phases: list[tuple[Packets, int, float]], look_every: int
) -> None:
    samples = repeated(phases)
    report = record(samples, look_every).report()
    for rate in some_rates(report):
        for index, burst_s in enumerate(BURSTS_S):
            rejected, _ = replay(samples, rate, math.ceil(burst_s * rate) + ROOM_BYTES)
            assert rejected <= report.rejected_bytes(rate, index)


@inputs(60)
@given(
    _PHASES, _LOOKS, st.sampled_from([(0, 0.1), (0, 0.5), (1, 0.1), (1, 0.3)]), st.sampled_from([0.5, 1.0])
)
def test_the_prediction_is_at_least_the_excess_of_an_exact_bucket_with_delay(
    phases: list[tuple[Packets, int, float]], look_every: int, limit: tuple[int, float], drawn: float
) -> None:
    """Include early drops, which begin at half of the maximum delay."""
    samples = repeated(phases)
    report = record(samples, look_every).report()
    for rate in some_rates(report):
        burst, max_delay_s = limit
        burst_bytes = math.ceil(BURSTS_S[burst] * rate) + ROOM_BYTES
        rejected, waiting = replay(samples, rate, burst_bytes, max_delay_s * drawn)
        assert rejected <= report.rejected_bytes(rate, burst)
        assert rejected + waiting <= report.waiting_bytes(rate)


def test_the_prediction_for_a_long_overload_is_close_to_an_exact_bucket() -> None:
    """Exclude a prediction of all bytes, which would be an upper bound too."""
    usual, loud = [(0.5, 50_000)], [(place / 20, 50_000) for place in range(20)]
    samples = [(usual, SAMPLE_S)] * 28_000 + [(loud, SAMPLE_S)] * 200
    report = report_of(record(samples))
    exact, _ = replay(samples, report.p99, round(BURSTS_S[1] * report.p99) + ROOM_BYTES)
    assert exact > 180_000_000
    assert exact <= report.rejected_bytes(report.p99, 1) < 1.02 * exact


@inputs(30)
@given(st.lists(st.integers(1_024, 10**9), min_size=1, max_size=100))
def test_percentiles_are_at_most_five_percent_above_the_exact_ones(rates: list[int]) -> None:
    offered = Offered()
    for rate in rates:
        offered.add([rate] * 10, SECOND)
    report, exact = report_of(offered), sorted(10 * rate for rate in rates)
    for percent, found in ((50, report.median), (90, report.p90), (99, report.p99), (100, report.highest)):
        expected = exact[math.ceil(percent * len(exact) / 100) - 1]
        assert expected * 0.999 <= found <= expected * 1.05


def test_a_constant_rate_exceeds_no_bucket_of_its_rate() -> None:
    report = report_of(steady(125_000, 100))
    assert 1_250_000 <= report.p99 <= 1_250_000 * 1.05
    assert set(report.bounds.values()) == {(0, 0, 0, 0)}


def test_seconds_without_traffic_change_no_percentile() -> None:
    offered = steady(125_000, 100)
    before = report_of(offered)
    for _ in range(10_000):
        offered.add([0] * 10, SECOND)
    after = report_of(offered)
    assert (after.median, after.p99, after.active_s) == (before.median, before.p99, 100)
    assert after.observed_s == 10_100


def test_a_burst_at_the_start_does_not_change_the_suggested_rate() -> None:
    """Count the bytes of the burst as excess, because its rates were not followed then."""
    offered = Offered()
    for size in [1_000_000] + [100_000] * 1_000:
        offered.add([size] * 10, SECOND)
    report = report_of(offered)
    assert report.p99 < 1_050_000
    assert report.rejected_bytes(report.p99, 1) < 0.03 * report.total_bytes


def test_reports_within_a_minute_cost_nothing() -> None:
    offered = steady(125_000, 100)
    first = report_of(offered)
    offered.add([125_000] * 10, SECOND)
    assert offered.report() is first
    for _ in range(60):
        offered.add([125_000] * 10, SECOND)
    assert report_of(offered).active_s == 161


def test_a_report_of_the_first_seconds_is_soon_replaced() -> None:
    """A reader of the live figures may ask each second, and a suggestion needs a minute."""
    offered, reports = Offered(), []
    for _ in range(64):
        offered.add([125_000] * 10, SECOND)
        reports.append(report_of(offered))
    assert sorted({found.active_s for found in reports}) == [1, 2, 4, 8, 16, 32, 64]


def test_nothing_is_reported_before_the_first_second_with_traffic() -> None:
    offered = Offered()
    for _ in range(10):
        offered.add([0] * 10, SECOND)
    assert offered.report() is None


@inputs(30)
@given(_PHASES)
def test_a_document_contains_the_whole_report(phases: list[tuple[Packets, int, float]]) -> None:
    report = record(repeated(phases)).report()
    assert report is None or OfferedReport.of_document(report.as_document()) == report


@pytest.mark.parametrize("samples", [100, 1_000])
def test_the_size_of_a_report_is_bounded(samples: int) -> None:
    """Record the most irregular traffic."""
    offered, random_ = Offered(), random.Random(7)
    for _ in range(samples):
        offered.add([int(10 ** random_.uniform(0, 10))] * 10, SECOND)
    assert len(report_of(offered).bounds) <= 9
    assert len(offered._buckets) <= 9
    assert len(offered._sizes) < 600
