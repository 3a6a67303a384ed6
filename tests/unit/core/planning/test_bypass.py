"""Detection of bypassed limits by counters."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.bypass import Amount, BypassWatch, Counted

KEY = SlotKey(PodId("shop", "web"), Direction.INGRESS)


def judged(*looks: tuple[int, int]) -> list[bool]:
    """Return after each check whether the limit is bypassed, by packets of interface and slot."""
    return judged_amounts(*((Amount(crossed), Amount(seen)) for crossed, seen in looks))


def judged_amounts(*looks: tuple[Amount, Amount]) -> list[bool]:
    watch, found = BypassWatch(), []
    for crossed, seen in looks:
        watch.compare({KEY: Counted(crossed, seen)})
        found.append(KEY in watch.bypassed)
    return found


def repeated(crossed: Amount, seen: Amount) -> list[bool]:
    """Return the verdicts if the same traffic passes before each of three checks."""
    return judged_amounts(
        *((Amount(*(n * each for each in crossed)), Amount(*(n * each for each in seen))) for n in range(3))
    )


@pytest.mark.parametrize(
    ("crossed", "seen", "bypassed"),
    [
        pytest.param(5000, 0, True, id="all"),
        pytest.param(4040, 40, True, id="1,000 packets/s beside 10 packets/s through the hook"),
        pytest.param(49, 0, False, id="too few to know"),
        pytest.param(150, 60, False, id="a difference that the time between two readings can explain"),
        pytest.param(10_000, 5000, False, id="half"),
        pytest.param(1000, 44_000, False, id="GSO packets, of which the slot counts the segments"),
        pytest.param(100, 5000, False, id="packets that the limit dropped after it saw them"),
    ],
)
def test_a_limit_is_bypassed_if_most_packets_do_not_pass_it(
    crossed: int, seen: int, *, bypassed: bool
) -> None:
    """Repeat the traffic. The second comparison confirms the first."""
    assert repeated(Amount(crossed), Amount(seen)) == [False, False, bypassed]


@pytest.mark.parametrize(
    ("crossed", "seen", "bypassed"),
    [
        pytest.param(Amount(1040, 4_000_000), Amount(1800, 2_600_000), False, id="most bytes pass the hook"),
        pytest.param(Amount(4040, 8_600_000), Amount(1800, 2_600_000), True, id="most packets and bytes"),
        pytest.param(Amount(1040, 8_600_000), Amount(1800, 2_600_000), True, id="most bytes"),
    ],
)
def test_segments_of_gso_packets_do_not_hide_a_bypass(
    crossed: Amount, seen: Amount, *, bypassed: bool
) -> None:
    """Send 40 GSO packets of 45 segments through the hook, beside packets that bypass it."""
    assert repeated(crossed, seen) == [False, False, bypassed]


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(0, 0), (0, 800), (800, 800), (800, 800)], id="in the queue behind the hook"),
        pytest.param([(0, 0), (800, 0), (800, 800), (1600, 800), (1600, 1600)], id="before the hook"),
    ],
)
def test_packets_that_wait_during_a_check_do_not_bypass_the_limit(looks: list[tuple[int, int]]) -> None:
    """Stop the traffic after packets were counted by one side only. No comparison confirms the suspicion."""
    assert not any(judged(*looks))


def test_dropped_packets_prove_that_a_limit_runs() -> None:
    """Count them, although the interface of the pod does not."""
    looks = [(0, 0), (1000, 0), (2000, 0), (2001, 500), (2002, 1000)]
    assert judged(*looks) == [False, False, True, True, False]


def test_few_packets_add_up_over_several_checks() -> None:
    assert judged((0, 0), (60, 1), (120, 2), (180, 3), (240, 4)) == [False, False, False, False, True]


def test_two_checks_with_traffic_clear_a_bypass_and_quiet_ones_do_not() -> None:
    looks = [(0, 0), (1000, 0), (2000, 0), (2000, 0), (3000, 1000), (3001, 1001), (4000, 2000)]
    assert judged(*looks) == [False, False, True, True, True, True, False]


def test_a_few_packets_are_enough_to_clear_a_bypass() -> None:
    looks = [(0, 0), (1000, 0), (2000, 0), (2030, 30), (2060, 60)]
    assert judged(*looks) == [False, False, True, True, False]


def test_counters_that_start_again_are_not_compared_with_earlier_ones() -> None:
    """Expect counters from zero of a new interface or a freed slot."""
    assert judged((5000, 5000), (5600, 10), (5700, 110)) == [False, False, False]


def test_a_removed_limit_is_forgotten() -> None:
    watch = BypassWatch()
    for crossed in (0, 1000, 2000):
        watch.compare({KEY: Counted(Amount(crossed), Amount(0))})
    watch.compare({})
    assert not watch.bypassed and not watch.suspected


def test_only_counters_after_a_change_of_programs_prove_that_a_limit_runs() -> None:
    watch = BypassWatch()
    for packets in (0, 1000):
        watch.compare({KEY: Counted(Amount(packets), Amount(packets))})
    assert watch.running == {KEY}
    watch.forget(KEY)
    watch.compare({KEY: Counted(Amount(1001), Amount(1001))})
    assert not watch.running


def test_packets_between_two_readings_do_not_bypass_the_limit() -> None:
    """Let a flood pass after the interface's counters are read, and before the slot's."""
    watch = BypassWatch()
    watch.compare({KEY: Counted(Amount(0), seen=Amount(500), seen_before=Amount(0))})
    watch.compare({KEY: Counted(Amount(500), seen=Amount(500), seen_before=Amount(500))})
    assert not watch.suspected
