"""The rates that samples of other limiters' documentation promise, under traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from tests.annotation_samples import SAMPLE_OF_CALICO, SAMPLE_OF_CILIUM, SAMPLE_OF_KUBERNETES
from tests.netns.agent import Agent, acquaint, document, limit_of, received, wait
from tests.netns.lab import Lab
from tests.netns.stream import stream
from tokenbucket.core.api.policy import Direction

HEADERS = 42
NS_PER_S = 10**9
PACKETS = 700
"""After the burst. One packet is then 0.14 % of the rate."""
PRECISION = 0.02
QUEUE_S = 0.15
"""More than the longest wait with Delay."""
SAMPLES = {
    "kubernetes": (SAMPLE_OF_KUBERNETES, Direction.INGRESS, 10**6, 400),
    "kubernetes, egress": (SAMPLE_OF_KUBERNETES, Direction.EGRESS, 10**6, 400),
    "cilium": (SAMPLE_OF_CILIUM, Direction.INGRESS, 20 * 10**6, 1400),
    "cilium, egress": (SAMPLE_OF_CILIUM, Direction.EGRESS, 10 * 10**6, 1400),
    "calico": (SAMPLE_OF_CALICO, Direction.EGRESS, 100 * 10**6, 1400),
}


class Bucket:
    """A bucket that is full at the first packet. Sizes are in bits, times in ns."""

    def __init__(self, bits_per_s: int, burst: int) -> None:
        self._rate, self._burst = bits_per_s, burst
        self._tokens, self._last_ns = burst * NS_PER_S, 0

    def admits(self, size: int, now_ns: int) -> bool:
        regained = (now_ns - self._last_ns) * self._rate if self._last_ns else 0
        self._tokens = min(self._tokens + regained, self._burst * NS_PER_S)
        self._last_ns = now_ns
        if self._tokens < size * NS_PER_S:
            return False
        self._tokens -= size * NS_PER_S
        return True


def admitted(limit: dict[str, Any], size: int, sent_ns: Sequence[int]) -> list[int]:
    """Return the numbers of the packets that the bucket of a limit admits."""
    bucket = Bucket(limit["bitsPerSecond"], 8 * limit["burstBytes"])
    bits = 8 * (size + HEADERS)
    return [number for number, now_ns in enumerate(sent_ns) if bucket.admits(bits, now_ns)]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_documented_sample_is_enforced_at_its_rate(name: str, lab: Lab, agent: Agent) -> None:
    """Compute the expected packets from the times at which they were sent, after the burst."""
    sample, direction, bits_per_s, size = SAMPLES[name]
    client, web = lab.pod("client", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    pod = document(web)
    pod["metadata"]["annotations"] = yaml.safe_load(sample)["metadata"]["annotations"]
    agent.write("pods.yaml", pod)
    agent.start("--bandwidth-annotations")
    limit = wait(lambda: limit_of("web", direction), agent.log)
    assert limit["bitsPerSecond"] == bits_per_s
    source, target = (client, web) if direction is Direction.INGRESS else (web, client)
    burst = limit["burstBytes"] // (size + HEADERS)
    queue = int(QUEUE_S * bits_per_s / (8 * (size + HEADERS)))
    before = received(target)
    with stream(source, target, size, 0) as sent:
        wait(lambda: received(target) >= before + burst + queue + PACKETS)
    expected = admitted(limit, size, sent.sent_ns)
    spent = expected[burst + queue]
    passed = sum(number >= spent for number, _ in sent.arrived)
    assert passed == pytest.approx(sum(number >= spent for number in expected), rel=PRECISION)
