"""A recorded workload, replayed with the suggested limit on the real program. The test has the clock."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.bpf.bucket_machine import OWNER, Machine, config
from tokenbucket.agent.offered import OfferedTraffic
from tokenbucket.bpf.byte_counters import ByteCounters
from tokenbucket.bpf.pins import Pins
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Direction, ExceedAction, Mode
from tokenbucket.core.limits.bucket import bucket_of
from tokenbucket.core.limits.slot import Slot, config_of
from tokenbucket.core.limits.suggestion import Suggestion, suggest
from tokenbucket.plugin.suggested_policy import policy_of

BEGIN_S = 1_000
SECONDS = 120
Packets = list[tuple[float, int]]
"""Times in seconds, and sizes."""


def bursts(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Yield a second of a high rate every 13 seconds, and little between."""
    for second in range(SECONDS):
        count = 60 if second % 13 == 0 else 4
        for _ in range(count):
            yield second + random_.random(), random_.randrange(200, 30_000)


def requests(random_: random.Random) -> Iterator[tuple[float, int]]:
    """Responses of very different sizes at random times."""
    now_s = 0.0
    while now_s < SECONDS:
        yield now_s, min(65_000, int(200 * random_.paretovariate(0.7)))
        now_s += random_.expovariate(15)


def ends_of_samples(_: random.Random) -> Iterator[tuple[float, int]]:
    """Yield all packets at the end of one sample and the begin of the next."""
    for second in range(SECONDS):
        for place in (0.2995, 0.3005):
            yield from ((second + place, 60_000) for _ in range(1 + second % 7))


def observe(machine: Machine, pins: Pins, packets: Packets) -> Suggestion:
    """Record packets as the agent does, and return the suggestion."""
    observed = config(8_000, 1_500, observe=True)
    machine.configure(observed)
    with mock.patch("threading.Thread.start"), ByteCounters(pins) as counters:
        traffic = OfferedTraffic(pins)
        traffic.follow({machine.index: Slot(OWNER, observed)})
        ahead = iter([*packets, (math.inf, 0)])
        now_s, size = next(ahead)
        for sample in range(10 * SECONDS + 1):
            while now_s < sample / 10:
                assert machine.offer(round((BEGIN_S + now_s) * 10**9), size)
                now_s, size = next(ahead)
            traffic.sample(counters, sample / 10)
        report = traffic.report(OWNER.key)
    assert report
    assert report.total_bytes >= 0.99 * sum(size for _, size in packets)
    return suggest({"machine": report}, ExceedAction.DROP)


def p99(packets: Packets) -> int:
    """Return the exact 99th percentile of the rates over 1 s, without seconds that have no packet."""
    sums = Counter[int]()
    for now_s, size in packets:
        sums[int(now_s)] += size
    return sorted(sums.values())[math.ceil(0.99 * len(sums)) - 1]


@pytest.mark.parametrize("workload", [bursts, requests, ends_of_samples])
def test_a_workload_loses_no_more_than_predicted_with_the_suggested_limit(
    machine: Machine, pins: Pins, workload: object
) -> None:
    packets = sorted(workload(random.Random(5)))  # type: ignore[operator]
    suggestion = observe(machine, pins, packets)
    assert suggestion.bits_per_s / 8 == pytest.approx(p99(packets), rel=0.1)
    policy = parse_policy(policy_of("shop", "suggested", {}, {Direction.INGRESS: suggestion}))
    bucket = bucket_of(policy.limits[Direction.INGRESS], Mode.ENFORCE, action=ExceedAction.DROP)
    machine.configure(config_of(bucket, Direction.INGRESS, node_reserve=False))
    machine.fill(BEGIN_S * 10**9)
    offers = [(machine.offer(round((BEGIN_S + now_s) * 10**9), size), size) for now_s, size in packets]
    lost = sum(size for passed, size in offers if not passed)
    assert lost / sum(size for _, size in packets) <= suggestion.excess.rejected


def test_the_replay_can_lose_more_than_a_wrong_prediction(machine: Machine, pins: Pins) -> None:
    """The workload exceeds a lower rate."""
    packets = sorted(bursts(random.Random(5)))
    suggestion = observe(machine, pins, packets)
    machine.configure(config(suggestion.bits_per_s // 10, suggestion.burst_bytes // 10))
    machine.fill(BEGIN_S * 10**9)
    lost = [size for now_s, size in packets if not machine.offer(round((BEGIN_S + now_s) * 10**9), size)]
    assert sum(lost) / sum(size for _, size in packets) > suggestion.excess.rejected
