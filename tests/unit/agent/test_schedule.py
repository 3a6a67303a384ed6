"""When passes are made, with the clock in hand."""

from __future__ import annotations

import pytest

from tokenbucket.agent.repairs import ALLOWED, WINDOW_S, Repairs
from tokenbucket.agent.schedule import Again, Schedule


def idle(at: float = 100.0) -> Schedule:
    """A schedule whose last pass was at that time."""
    schedule = Schedule(min_s=1, max_s=60, retry_s=2, soon_s=5)
    schedule.started(at)
    return schedule


def test_the_first_pass_is_due_at_once() -> None:
    """Nothing is limited before it."""
    assert Schedule().due(0.0)


def test_a_kick_makes_a_pass_due_after_the_minimum_interval() -> None:
    """A storm of events is one pass."""
    schedule = idle()
    for _ in range(100):
        schedule.kick(100.5)
    assert not schedule.due(100.9)
    assert schedule.due(101.0)


def test_a_kick_after_a_quiet_time_is_due_at_once() -> None:
    """A new veth does not wait."""
    schedule = idle()
    schedule.kick(130.0)
    assert schedule.due(130.0)


def test_without_a_kick_a_pass_is_due_after_the_maximum_interval() -> None:
    """Events are hints; the full pass is the truth."""
    assert idle().wait(100.0) == 60.0
    assert idle().due(160.0)


@pytest.mark.parametrize(("again", "pause_s"), [(Again.FAILED, 2.0), (Again.WAITS, 5.0)])
def test_a_pass_that_left_something_to_do_is_followed_soon(again: Again, pause_s: float) -> None:
    """Sooner than the maximum interval, later than at once; what only time makes possible is no failure."""
    schedule = idle()
    schedule.started(200.0, again)
    assert schedule.wait(200.0) == pause_s


def test_five_repairs_a_minute_are_made_and_no_more() -> None:
    """Two programs that want the same place would repair each other for ever."""
    repairs = Repairs()
    assert [repairs.allow("eth0", float(second)) for second in range(7)] == [True] * ALLOWED + [False] * 2
    assert repairs.allow("eth1", 7.0)
    assert repairs.allow("eth0", WINDOW_S + 0.5)


@pytest.mark.parametrize("pause_s", [20.0, 61.0])
def test_rare_repairs_are_always_made(pause_s: float) -> None:
    """Somebody who restarts a CNI now and then is not a contender."""
    repairs = Repairs()
    assert all(repairs.allow("eth0", number * pause_s) for number in range(20))
