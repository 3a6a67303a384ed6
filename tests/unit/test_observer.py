"""The bound that the observer of the traffic tests asserts."""

from __future__ import annotations

import pytest

from tests.observer import Bound, Sample

BOUND = Bound(packets_per_s=10, burst_packets=20)


def samples(*counts: int, step_s: float = 0.1) -> list[Sample]:
    """Return samples in equal steps of time, with this number of packets each."""
    return [Sample(number * step_s, number * step_s + 0.001, 0, count) for number, count in enumerate(counts)]


def test_a_burst_and_the_rate_are_within_the_bound() -> None:
    """Permit one packet more, which can have been on its way."""
    assert BOUND.exceeded(samples(0, 21, 22, 23, 24)) == ""
    assert BOUND.exceeded(samples(0, 24)) == "2 packets above 10/s x time + burst + one packet"


def test_two_bursts_exceed_the_bound_in_any_period() -> None:
    """Do not credit the silent time before them."""
    silent = [20] * 100
    assert BOUND.exceeded(samples(0, *silent, 41)) == ""
    assert BOUND.exceeded(samples(0, *silent, 46))


@pytest.mark.parametrize("unread", [[], samples(1)])
def test_fewer_than_two_samples_never_exceed_the_bound(unread: list[Sample]) -> None:
    """Expect no time between them."""
    assert BOUND.exceeded(unread) == ""


def test_the_bound_includes_a_gso_packet_only_for_tcp() -> None:
    """Limit datagrams to the size of a frame."""
    bound = Bound(bytes_per_s=1000, burst_bytes=1000)
    flood = [Sample(0, 0, 0), Sample(1, 1, 10_000)]
    assert bound.exceeded(flood)
    assert not bound.exceeded([flood[0], Sample(1, 1, 10_000, segments=1)])
