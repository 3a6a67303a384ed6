"""Debts of meters whose rates change."""

from __future__ import annotations

from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.debts import Debts
from tokenbucket.core.limits.slot import RateChange

NOW_Q = gcra.word_of(10**15)
SLOW, FAST = 1000, 1


def test_a_higher_rate_shortens_a_debt() -> None:
    words = {"bytes_tat": NOW_Q + 5000}
    change = RateChange("bytes_tat", (SLOW, FAST), max_debt_q=100)
    assert Debts().rescale(7, words, [change], NOW_Q) == {"bytes_tat": NOW_Q + 100}


def test_a_debt_from_before_a_lower_rate_stays() -> None:
    """Keep a change to a low rate and back from paying debts."""
    debts, words = Debts(), {"bytes_tat": NOW_Q + 5000}
    lowered = debts.rescale(7, words, [RateChange("bytes_tat", (FAST, SLOW), max_debt_q=10**9)], NOW_Q)
    assert lowered == words
    assert debts.rescale(7, words, [RateChange("bytes_tat", (SLOW, FAST), max_debt_q=100)], NOW_Q) == words
    other_slot = debts.rescale(8, words, [RateChange("bytes_tat", (SLOW, FAST), max_debt_q=100)], NOW_Q)
    assert other_slot == {"bytes_tat": NOW_Q + 100}
