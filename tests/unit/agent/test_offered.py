"""The slots that the agent records, and the duration of a record."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import pytest

from tokenbucket.agent import offered
from tokenbucket.agent.offered import OfferedTraffic
from tokenbucket.bpf.pins import Pins
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import DeviceId, Owner, Slot, SlotConfig, SlotKey
from tokenbucket.units import unix_time

OTHER = PodId("shop", "other", "2")
KEY = SlotKey(PodId("shop", "web", "1"), Direction.INGRESS)
OBSERVED = Slot(Owner(KEY), SlotConfig(bits_per_s=10**6, observe=True))
ENFORCED = replace(OBSERVED, config=SlotConfig(bits_per_s=10**6))


@dataclass
class Counted:
    """Counters that count up by the same number of bytes at each read."""

    step: int = 1000
    reads: int = 0
    wanted: Collection[int] = ()

    def read(self, slots: Collection[int]) -> list[int]:
        self.reads += 1
        self.wanted = slots
        return [self.step * self.reads for _ in slots]


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> OfferedTraffic:
    """Sampled by the test, not by a thread."""
    monkeypatch.setattr(offered.threading.Thread, "start", lambda _: None)
    return OfferedTraffic(Pins())


def sample(traffic: OfferedTraffic, counters: Counted, times: int, first: int = 0) -> None:
    for number in range(first, first + times):
        traffic.sample(counters, number / 10)  # type: ignore[arg-type]


def test_only_pods_in_observe_mode_are_sampled(traffic: OfferedTraffic) -> None:
    device = replace(OBSERVED, owner=Owner(SlotKey(DeviceId(1, "eth1"), Direction.EGRESS)))
    guard = replace(OBSERVED, owner=Owner(KEY.guard))
    traffic.follow({1: ENFORCED, 2: device, 3: guard, 7: OBSERVED})
    counters = Counted()
    sample(traffic, counters, 1)
    assert counters.wanted == [7]


def test_the_number_of_records_is_bounded(traffic: OfferedTraffic) -> None:
    counters = Counted()
    traffic.follow(dict.fromkeys(range(1, 2 * offered.MOST_LIMITS), OBSERVED))
    sample(traffic, counters, 1)
    assert len(counters.wanted) == offered.MOST_LIMITS


def test_a_limit_that_is_observed_again_at_once_is_sampled_at_the_same_pace(traffic: OfferedTraffic) -> None:
    """Wait between samples, although the thread still runs."""
    traffic.follow({7: OBSERVED})
    traffic.follow({})
    traffic.follow({7: OBSERVED})
    assert not traffic._ended.is_set()


def test_the_record_begins_with_the_second_sample(traffic: OfferedTraffic) -> None:
    """Exclude the bytes that the counters contained before."""
    traffic.follow({7: OBSERVED})
    sample(traffic, Counted(step=1000), 20)
    report = traffic.report(KEY)
    assert report
    assert report.total_bytes == 19 * 1000
    assert abs(unix_time(report.since) - time.time()) < 86_400


@pytest.mark.parametrize("slots", [{}, {7: ENFORCED}])
def test_a_record_ends_with_the_limit_in_observe_mode(
    traffic: OfferedTraffic, slots: dict[int, Slot]
) -> None:
    traffic.follow({7: OBSERVED})
    sample(traffic, Counted(), 20)
    traffic.follow(slots)
    assert traffic.report(KEY) is None
    assert not traffic.sample(Counted(), 9.0)  # type: ignore[arg-type]


def test_a_record_outlives_a_change_of_its_slot(traffic: OfferedTraffic) -> None:
    """The counters of the other slot are not compared with those of the first."""
    traffic.follow({7: OBSERVED})
    sample(traffic, Counted(step=1000), 20)
    traffic.follow({8: OBSERVED})
    sample(traffic, Counted(step=10**9, reads=20), 1, first=20)
    traffic.follow({8: OBSERVED, 9: replace(OBSERVED, owner=Owner(SlotKey(OTHER, Direction.INGRESS)))})
    report = traffic.report(KEY)
    assert report
    assert report.total_bytes == 19 * 1000


def test_a_reset_counter_starts_a_new_difference(traffic: OfferedTraffic) -> None:
    traffic.follow({7: OBSERVED})
    sample(traffic, Counted(step=1000, reads=1000), 20)
    sample(traffic, Counted(step=1000), 20, first=20)
    report = traffic.report(KEY)
    assert report
    assert report.total_bytes == (19 + 10) * 1000
