"""The observer of the traffic tests detects limits that are exceeded."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from tests.netns.agent import Agent, acquaint, drop, send, tokenbucket
from tests.netns.lab import BRIDGE, Lab, ip
from tests.netns.recorder import Recorder
from tests.observer import open_counters, take

pytestmark = pytest.mark.exceeds


@pytest.mark.parametrize(
    ("direction", "limit", "unit"),
    [("ingress", drop(1, 10), "packets"), ("egress", drop(bits="100k", depth="4Ki"), "bytes")],
    ids=["ingress", "egress"],
)
def test_a_limit_that_is_detached_behind_the_agents_back_is_noticed(
    lab: Lab, agent: Agent, recorder: Recorder, direction: str, limit: dict[str, Any], unit: str
) -> None:
    """The counters alone show the excess. The agent has reported the limit as enforced."""
    web, other = lab.pod("web", ["10.2.1.2/24"]), lab.pod("other", ["10.1.1.2/24"])
    acquaint(web, other)
    agent.limit(web, **{direction: limit})
    source, target = (other, web) if direction == "ingress" else (web, other)
    assert send(source, target, 50, 1000) < 50
    agent.stop()
    tokenbucket("detach", "--all")
    assert send(source, target, 50, 1000) == 50
    recorder.stop()
    with pytest.raises(AssertionError, match=f"web {direction}: .* {unit} above"):
        recorder.verify(agent.lines())


def test_multicast_of_the_node_is_not_counted_if_the_pod_has_no_ipv6(lab: Lab) -> None:
    """Multicast passes within the reserve, and the pod discards it."""
    web, other = lab.pod("web", ["10.2.1.2/24"], "bridge"), lab.pod("other", ["10.3.1.2/24"], "bridge")
    acquaint(web, other)
    ip("address", "add", "fd02::1/64", "dev", BRIDGE, "nodad")
    with contextlib.ExitStack() as stack:
        counters = [stack.enter_context(file) for file in web.inside(open_counters)]
        before = take(counters)
        sender = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        for _ in range(3):
            sender.sendto(b"", ("ff02::1", 9, 0, socket.if_nametoindex(BRIDGE)))
        after = take(counters)
    assert after.packets <= before.packets
    assert after.bytes <= before.bytes
