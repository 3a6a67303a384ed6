"""Delay of a lower rate of a guard until packets of the higher rate have left."""

from __future__ import annotations

from tokenbucket.agent.lower_rates import LowerRates
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import Owner, Slot, SlotConfig, SlotKey
from tokenbucket.core.planning.plan import WriteSlot

LIMIT = SlotKey(PodId("shop", "web"), Direction.EGRESS)
SECOND_Q = gcra.QUANTA_PER_S


def slot(bits_per_s: int = 0, packets_per_s: int = 0, key: SlotKey = LIMIT.guard) -> Slot:
    """Return a guard of a limit that delays packets by up to a second."""
    return Slot(Owner(key), SlotConfig(bits_per_s, SECOND_Q, packets_per_s, SECOND_Q, max_delay_q=SECOND_Q))


def held(before: Slot | None, after: Slot, *times_s: float) -> list[bool]:
    """Return whether the write is held back at each of these times."""
    rates, action = LowerRates(), WriteSlot(3, after, fresh=before is None)
    return [rates.holds_back(action, before, now_s) for now_s in times_s]


def test_a_lower_rate_waits_for_the_packets_that_were_delayed_before() -> None:
    """Wait for 1.5 s, and for a GSO packet at 1 Gbit/s."""
    assert held(slot(10**9), slot(10**6), 0.0, 1.4, 1.6) == [True, True, False]


def test_a_meter_that_the_guard_did_not_have_is_a_lower_rate() -> None:
    """Wait for packets that no packet rate delayed."""
    assert held(slot(10**9), slot(10**9, 100), 0.0, 1.6) == [True, False]


def test_no_other_change_waits() -> None:
    """Write a higher rate, one rate less, a new guard, and a limit, which delays its own packets."""
    assert held(slot(10**6), slot(10**9), 0.0) == [False]
    assert held(slot(10**6, 100), slot(10**6), 0.0) == [False]
    assert held(None, slot(10**6), 0.0) == [False]
    assert held(slot(10**9, key=LIMIT), slot(10**6, key=LIMIT), 0.0) == [False]


def test_each_lower_rate_waits_separately() -> None:
    """End the earlier wait when the rate is raised."""
    rates = LowerRates()
    lower, higher = WriteSlot(3, slot(10**6), fresh=False), WriteSlot(3, slot(10**9), fresh=False)
    assert rates.holds_back(lower, slot(10**8), 0.0)
    assert not rates.holds_back(higher, slot(10**8), 1.0)
    assert rates.holds_back(lower, slot(10**9), 2.0)
