"""A change between Delay and Drop while packets come: queues come and go, and hooks move."""

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
"""Packets: while a root qdisc is changed an interface has none, and the kernel drops what is sent, until its
other processors have seen that."""
Ends = tuple[Pod, Pod]


@pytest.fixture(params=["ingress", "egress"])
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ends(lab: Lab, direction: str) -> Ends:
    """Who sends, and who receives; the one in that direction is limited."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.1.1.2/24"])
    acquaint(web, other)
    return (other, web) if direction == "ingress" else (web, other)


def limited(agent: Agent, web: Pod, direction: str, bits_per_s: int, action: str = "Delay") -> None:
    limit = {"rate": {"bits": bits_per_s}, "burst": {"bytes": BURST}, "exceedAction": action}
    if action == "Delay":
        limit["maxDelay"] = f"{int(MAX_DELAY_S * 1000)}ms"
    agent.limit(web, **{direction: limit})


def switches(agent: Agent, web: Pod, direction: str, bits_per_s: int) -> None:
    """There and back, several times, each awaited to its last action."""
    for number in range(1, SWITCHES + 1):
        limited(agent, web, direction, bits_per_s, "Drop")
        wait(lambda number=number: len(agent.events("queue removed")) == number, agent.log)
        limited(agent, web, direction, bits_per_s)
        wait(lambda number=number: len(agent.events("limit set")) == 2 * number + 1, agent.log)


def test_below_the_limit_only_the_change_of_a_queue_costs_packets(
    lab: Lab, agent: Agent, ends: Ends, direction: str
) -> None:
    """None is there twice, and the filters' moves lose none."""
    bits_per_s = 40_000_000
    limited(agent, lab.pods["web"], direction, bits_per_s)
    with stream(*ends, size=100, pause_s=0.005) as sent:
        switches(agent, lab.pods["web"], direction, bits_per_s)
    numbers = [number for number, _ in sent.arrived]
    counted = limit_of("web", direction)
    assert counted
    assert counted["exceedPackets"] == 0
    assert counted["conformPackets"] >= len(numbers), "what a filter at each end sees counts twice"
    assert len(numbers) == len(set(numbers))
    assert sent.sent - len(numbers) <= 2 * SWITCHES * KERNELS_SHARE


def test_above_the_limit_no_more_arrives_than_it_lets_pass(
    lab: Lab, agent: Agent, ends: Ends, direction: str
) -> None:
    """At every moment: the rate x time, the burst, and what Delay has let wait."""
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
