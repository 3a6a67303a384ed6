"""How often a filter is repaired, with the clock in hand."""

from __future__ import annotations

import pytest

from tokenbucket.agent.repairs import ALLOWED, WINDOW_S, Repairs


def test_five_repairs_a_minute_are_made_and_no_more() -> None:
    """Two programs that want the same place would repair each other for ever."""
    repairs = Repairs()
    assert [repairs.allow("eth0", float(second)) for second in range(7)] == [True] * ALLOWED + [False] * 2
    assert repairs.allow("eth1", 7.0)
    assert repairs.allow("eth0", WINDOW_S + 0.5)


@pytest.mark.parametrize("pause_s", [20.0, 61.0])
def test_rare_repairs_are_always_made(pause_s: float) -> None:
    """A CNI plugin that restarts now and then is not a contender."""
    repairs = Repairs()
    assert all(repairs.allow("eth0", number * pause_s) for number in range(20))
