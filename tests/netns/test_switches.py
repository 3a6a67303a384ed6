"""Changes between Delay and Drop under traffic: the agent adds and removes queues, and moves hooks."""

from __future__ import annotations

import pytest

from tests.netns.agent import Agent, acquaint, limit_of, wait
from tests.netns.lab import Lab, Pod
from tests.netns.stream import stream

pytestmark = pytest.mark.needs("sch_fq")
SWITCHES = 3
HEADERS = 42
BURST = 8192
MAX_DELAY_S = 0.1
KERNELS_SHARE = 5
"""Packets: during a change of the root qdisc, an interface has none. The kernel drops sent packets until its
other processors have seen that."""
Ends = tuple[Pod, Pod]


@pytest.fixture(params=["ingress", "egress"])
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ends(lab: Lab, direction: str) -> Ends:
    """Provide the sender and the receiver. The pod in that direction is limited."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.1.1.2/24"])
    acquaint(web, other)
    return (other, web) if direction == "ingress" else (web, other)


def limited(agent: Agent, web: Pod, direction: str, bits_per_s: int, action: str = "Delay") -> None:
    limit = {"rate": {"bits": bits_per_s}, "burst": {"bytes": BURST}, "exceedAction": action}
    if action == "Delay":
        limit["maxDelay"] = f"{int(MAX_DELAY_S * 1000)}ms"
    agent.limit(web, **{direction: limit})


def switches(agent: Agent, web: Pod, direction: str, bits_per_s: int) -> None:
    """Change between Delay and Drop several times, and wait for the last action of each change."""
    for number in range(1, SWITCHES + 1):
        limited(agent, web, direction, bits_per_s, "Drop")
        wait(lambda number=number: len(agent.events("queue removed")) == number, agent.log)
        limited(agent, web, direction, bits_per_s)
        wait(lambda number=number: len(agent.events("limit set")) == 2 * number + 1, agent.log)


def test_below_the_limit_only_a_queue_change_drops_packets(
    lab: Lab, agent: Agent, ends: Ends, direction: str
) -> None:
    """No packet arrives twice, and moving the filters drops none."""
    bits_per_s = 40_000_000
    limited(agent, lab.pods["web"], direction, bits_per_s)
    with stream(*ends, size=100, pause_s=0.005) as sent:
        switches(agent, lab.pods["web"], direction, bits_per_s)
    numbers = [number for number, _ in sent.arrived]
    counted = limit_of("web", direction)
    assert counted
    assert counted["exceedPackets"] == 0
    assert counted["conformPackets"] >= len(numbers), "packets that pass a filter at both ends count twice"
    assert len(numbers) == len(set(numbers))
    assert sent.sent - len(numbers) <= 2 * SWITCHES * KERNELS_SHARE


def test_above_the_limit_no_excess_arrives(lab: Lab, agent: Agent, ends: Ends, direction: str) -> None:
    """At any time, at most the rate x time, the burst, and the backlog of Delay has arrived."""
    bits_per_s = 2_000_000
    limited(agent, lab.pods["web"], direction, bits_per_s)
    size = 1200
    with stream(*ends, size=size, pause_s=0.002) as sent:
        switches(agent, lab.pods["web"], direction, bits_per_s)
    assert len(sent.arrived) < sent.sent
    once_bits = 8 * BURST + MAX_DELAY_S * bits_per_s
    excess = [
        count
        for count, (_, now_ns) in enumerate(sent.arrived)
        if count * (size + HEADERS) * 8 > bits_per_s * now_ns / 10**9 + once_bits
    ]
    assert excess == []
