"""Traffic that goes past the hook."""

from __future__ import annotations

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.bypass import BypassWatch, Counted

KEY = SlotKey(PodId("shop", "web"), Direction.INGRESS)


def judged(*looks: tuple[int, int]) -> list[bool]:
    """After each look, of packets received and seen, whether the limit counts as bypassed."""
    watch = BypassWatch()
    found = []
    for received, seen in looks:
        watch.look({KEY: Counted(received, seen)})
        found.append(KEY in watch.bypassed)
    return found


def test_packets_that_no_slot_saw_went_past_the_hook() -> None:
    """The first look has nothing to compare with."""
    assert judged((5000, 0), (10000, 0)) == [False, True]


def test_a_slot_that_saw_packets_is_not_bypassed() -> None:
    """Not even when it saw fewer: it drops some."""
    assert judged((0, 0), (10000, 3)) == [False, False]


def test_a_few_packets_prove_nothing() -> None:
    """They may have been on their way when the counters were read."""
    assert judged((0, 0), (99, 0)) == [False, False]


def test_a_bypass_ends_when_the_slot_sees_packets_and_not_when_it_is_quiet() -> None:
    """Nothing received says nothing new."""
    assert judged((0, 0), (1000, 0), (1000, 0), (1001, 1)) == [False, True, True, False]


def test_a_limit_that_is_gone_is_forgotten() -> None:
    """Its successor is looked at anew."""
    watch = BypassWatch()
    for received in (0, 1000):
        watch.look({KEY: Counted(received, 0)})
    watch.look({})
    assert not watch.bypassed
