"""How often a status is written, with the clock in hand."""

from __future__ import annotations

import pytest

from tokenbucket.controller.write_throttle import EVENTS_PER_S, LONGEST_S, WriteThrottle


def written(policy: str = "web") -> WriteThrottle:
    """A pace after the status of a policy was written at 100 s."""
    pace = WriteThrottle()
    pace.wrote(policy, 100.0)
    return pace


def test_the_first_status_is_written_at_once() -> None:
    """Whoever applies a policy waits for it."""
    assert WriteThrottle().wait_s("web", 5000, 100.0) == 0.0


@pytest.mark.parametrize("nodes", [200, 1000, 5000])
def test_a_status_that_changes_all_the_time_makes_a_bounded_number_of_events(nodes: int) -> None:
    """Each write is an event on each node."""
    interval_s = written().wait_s("web", nodes, 100.0)
    assert nodes / interval_s <= max(EVENTS_PER_S, nodes / LONGEST_S)
    assert interval_s <= LONGEST_S
    assert written().wait_s("web", nodes, 100.0 + interval_s) == 0.0


def test_a_small_cluster_hardly_waits() -> None:
    """There, the loop's own second is longer."""
    assert written().wait_s("web", 20, 100.0) < 1.0


def test_one_policy_does_not_hold_up_another() -> None:
    """Each has a pace of its own."""
    assert written("web").wait_s("api", 5000, 100.0) == 0.0


def test_a_policy_that_is_no_more_is_forgotten() -> None:
    """A controller runs for months."""
    pace = written("web")
    pace.wrote("api", 100.0)
    pace.keep({"api"})
    assert pace.wait_s("web", 5000, 100.0) == 0.0
    assert pace.wait_s("api", 5000, 100.0) > 0.0
