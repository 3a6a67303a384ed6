"""Detection of bypassed limits by counters."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.bypass import BypassWatch, Counted

KEY = SlotKey(PodId("shop", "web"), Direction.INGRESS)


def judged(*looks: tuple[int, int]) -> list[bool]:
    """Return after each check whether the limit is bypassed, by packets of interface and slot."""
    watch, found = BypassWatch(), []
    for crossed, seen in looks:
        watch.compare({KEY: Counted(crossed, seen)})
        found.append(KEY in watch.bypassed)
    return found


@pytest.mark.parametrize(
    ("crossed", "seen", "bypassed"),
    [
        pytest.param(5000, 0, True, id="all"),
        pytest.param(4040, 40, True, id="1,000 packets/s beside 10 packets/s through the hook"),
        pytest.param(99, 0, False, id="too few to know"),
        pytest.param(150, 60, False, id="a difference that the time between two readings can explain"),
        pytest.param(10_000, 5000, False, id="half"),
        pytest.param(1000, 44_000, False, id="GSO packets, of which the slot counts the segments"),
        pytest.param(100, 5000, False, id="packets that the limit dropped after it saw them"),
    ],
)
def test_a_limit_is_bypassed_if_most_packets_do_not_pass_it(
    crossed: int, seen: int, *, bypassed: bool
) -> None:
    assert judged((7, 3), (7 + crossed, 3 + seen)) == [False, bypassed]


def test_dropped_packets_prove_that_a_limit_runs() -> None:
    """Count them, although the interface of the pod does not."""
    assert judged((0, 0), (1000, 0), (1001, 500), (1002, 1000)) == [False, True, True, False]


def test_few_packets_add_up_over_several_checks() -> None:
    assert judged((0, 0), (60, 1), (120, 2)) == [False, False, True]


def test_two_checks_with_traffic_clear_a_bypass_and_quiet_ones_do_not() -> None:
    looks = [(0, 0), (1000, 0), (1000, 0), (2000, 1000), (2001, 1001), (3000, 2000)]
    assert judged(*looks) == [False, True, True, True, True, False]


def test_a_few_packets_are_enough_to_clear_a_bypass() -> None:
    assert judged((0, 0), (1000, 0), (1030, 30), (1060, 60)) == [False, True, True, False]


def test_counters_that_start_again_are_not_compared_with_earlier_ones() -> None:
    """Expect counters from zero of a new interface or a freed slot."""
    assert judged((5000, 5000), (5600, 10), (5700, 110)) == [False, False, False]


def test_a_removed_limit_is_forgotten() -> None:
    watch = BypassWatch()
    for crossed in (0, 1000):
        watch.compare({KEY: Counted(crossed, 0)})
    watch.compare({})
    assert not watch.bypassed


def test_only_counters_after_a_change_of_programs_prove_that_a_limit_runs() -> None:
    watch = BypassWatch()
    for packets in (0, 1000):
        watch.compare({KEY: Counted(packets, packets)})
    assert watch.running == {KEY}
    watch.forget(KEY)
    watch.compare({KEY: Counted(1001, 1001)})
    assert not watch.running


def test_packets_between_two_readings_do_not_bypass_the_limit() -> None:
    """Let a flood pass after the interface's counters are read, and before the slot's."""
    watch = BypassWatch()
    watch.compare({KEY: Counted(0, seen=500, seen_before=0)})
    watch.compare({KEY: Counted(500, seen=500, seen_before=500)})
    assert not watch.bypassed
