"""The delay of starting agents."""

from __future__ import annotations

import random
import threading

import pytest

from tokenbucket.agent import start_delay
from tokenbucket.agent.start_delay import StartDelay


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the longest delay."""
    monkeypatch.setattr(random, "random", lambda: 1.0)


@pytest.mark.parametrize(("nodes", "seconds"), [(1, 1 / 80), (80, 1), (4000, 50), (5000, 60), (50_000, 60)])
def test_the_delay_grows_with_the_number_of_nodes(nodes: int, seconds: float) -> None:
    """Stay below the 90 s after which a node is unknown."""
    delay = StartDelay(0)
    delay.counted(nodes)
    delay.counted(1)
    assert delay.seconds() == seconds


@pytest.mark.parametrize(("longest_s", "seconds"), [(None, 0), (7.5, 7.5)])
def test_a_set_delay_waits_for_no_count(longest_s: float | None, seconds: float) -> None:
    delay = StartDelay(longest_s)
    assert delay.seconds() == seconds
    delay.counted(5000)
    assert delay.seconds() == seconds


def test_all_watches_wait_for_the_count() -> None:
    delay, found = StartDelay(0), []
    watches = [threading.Thread(target=lambda: found.append(delay.seconds())) for _ in range(3)]
    for each in watches:
        each.start()
    delay.counted(160)
    for each in watches:
        each.join()
    assert found == [2.0] * 3


def test_an_api_server_that_does_not_answer_delays_as_in_the_largest_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Let an API server return that thousands of agents wait for."""
    monkeypatch.setattr(start_delay, "_COUNT_TIMEOUT_S", 0.01)
    silent, failing = StartDelay(0), StartDelay(0)
    failing.counted(0)
    assert silent.seconds() == failing.seconds() == 60
