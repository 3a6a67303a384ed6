"""Interpretation of the word of a meter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.limits import gcra

S_Q = gcra.QUANTA_PER_S


@given(st.integers(0, 2**64), st.integers(1, 2**62))
def test_a_fresh_word_reads_as_a_full_bucket_at_any_uptime(now_ns: int, burst_q: int) -> None:
    """Vary the clock and the burst."""
    tat, now_q = gcra.never_used(now_ns), gcra.word_of(now_ns)
    assert gcra.tokens_q(tat, now_q, burst_q) == burst_q


@given(st.integers(8_000, 10**12), st.integers(64, 4 * 2**30))
def test_a_burst_in_bytes_survives_its_conversion_to_time(bits_per_s: int, size_bytes: int) -> None:
    """Show the declared burst."""
    assert gcra.bytes_in(gcra.bytes_time_q(size_bytes, bits_per_s), bits_per_s) == size_bytes


@given(st.integers(1, 10**9), st.integers(1, 2**24))
def test_a_burst_in_packets_survives_its_conversion_to_time(packets_per_s: int, packets: int) -> None:
    """Show the declared burst."""
    assert gcra.packets_in(gcra.packets_time_q(packets, packets_per_s), packets_per_s) == packets


@pytest.mark.parametrize("now_q", [5 * S_Q, 3, 2**64 - 3])
@pytest.mark.parametrize(
    ("behind_q", "tokens_q", "case"),
    [
        (11 * S_Q, 10 * S_Q, gcra.Case.IDLE),
        (10 * S_Q, 10 * S_Q, gcra.Case.IN_WINDOW),
        (1 * S_Q, 1 * S_Q, gcra.Case.IN_WINDOW),
        (0, 0, gcra.Case.TOO_FAST),
        (-2 * S_Q, -2 * S_Q, gcra.Case.TOO_FAST),
    ],
)
def test_a_word_has_one_of_three_cases(now_q: int, behind_q: int, tokens_q: int, case: gcra.Case) -> None:
    """Compare times across the wrap of the clock too."""
    tat = (now_q - behind_q) % 2**64
    assert gcra.tokens_q(tat, now_q, 10 * S_Q) == tokens_q
    assert gcra.case_of(tat, now_q, 1 * S_Q, 10 * S_Q) is case


@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, S_Q),
    st.lists(st.tuples(st.booleans(), st.integers(0, S_Q), st.integers(0, S_Q)), max_size=20),
)
def test_charging_a_meter_with_the_traffic_of_another_merges_both(
    begin_q: int, burst_q: int, packets: list[tuple[bool, int, int]]
) -> None:
    """Yield the word of a meter that saw all packets."""
    now_q, one, word, other = begin_q, begin_q, begin_q, begin_q
    for passes_other, gap_q, cost_q in packets:
        now_q = (now_q + gap_q) % 2**64
        before = other
        if passes_other:
            other = _used(other, now_q, cost_q, burst_q)
        else:
            word = _used(word, now_q, cost_q, burst_q)
        word = gcra.charged(word, before, other, now_q, burst_q)
        one = _used(one, now_q, cost_q, burst_q)
        assert gcra.tokens_q(word, now_q, burst_q) == gcra.tokens_q(one, now_q, burst_q)


def _used(tat: int, now_q: int, cost_q: int, burst_q: int) -> int:
    """Return the word after a packet that passes in any case."""
    return (now_q - gcra.tokens_q(tat, now_q, burst_q) + cost_q) % 2**64


def test_a_filled_meter_charges_nothing() -> None:
    now_q = 5 * S_Q
    assert gcra.charged(now_q, now_q, gcra.never_used(5 * 10**9), now_q, S_Q) == now_q


@given(
    owed_q=st.integers(1, gcra.AHEAD_MAX_Q),
    before_q=st.integers(-gcra.AHEAD_MAX_Q, gcra.AHEAD_MAX_Q),
    most_q=st.integers(0, gcra.AHEAD_MAX_Q),
    now_q=st.integers(0, 2**64 - 1),
    slow=st.integers(8_000, 10**9),
    times=st.integers(2, 1000),
)
def test_a_higher_rate_keeps_the_bytes_of_a_debt_and_never_its_time(
    owed_q: int, before_q: int, most_q: int, now_q: int, slow: int, times: int
) -> None:
    """Keep the time of a debt from before the rate was lowered."""
    scales = gcra.bytes_scale(slow), gcra.bytes_scale(slow * times)
    words = (now_q + owed_q) % 2**64, (now_q + before_q) % 2**64
    left_q = -gcra.tokens_q(gcra.at_new_rate(*words, now_q, scales, most_q), now_q, 0)
    before_q = min(max(0, before_q), owed_q)
    same_q = before_q + (owed_q - before_q) / times
    assert left_q == pytest.approx(min(owed_q, max(most_q, same_q)), rel=2e-5, abs=2)


@pytest.mark.parametrize(("scales", "left_q"), [((5, 10), 10), ((5, 5), 10), ((0, 5), 3), ((10, 5), 5)])
def test_a_debt_is_reduced_if_the_rate_rises_or_the_meter_was_unused(
    scales: tuple[int, int], left_q: int
) -> None:
    """Reduce the debt of a meter that was not in use."""
    now_q = 10**15
    assert gcra.at_new_rate(now_q + 10, now_q, now_q, scales, most_q=3) == now_q + left_q
    assert gcra.at_new_rate(now_q - 10, now_q, now_q, scales, most_q=3) == now_q - 10
