"""The observer of the traffic tests, on limits that do not hold."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns.agent import Agent, acquaint, drop, send, tokenbucket
from tests.netns.lab import Lab
from tests.netns.recorder import Recorder

pytestmark = pytest.mark.exceeds


@pytest.mark.parametrize(
    ("direction", "limit", "unit"),
    [("ingress", drop(1, 10), "packets"), ("egress", drop(bits="100k", depth="4Ki"), "bytes")],
    ids=["ingress", "egress"],
)
def test_a_limit_that_is_detached_behind_the_agents_back_is_noticed(
    lab: Lab, agent: Agent, recorder: Recorder, direction: str, limit: dict[str, Any], unit: str
) -> None:
    """From counters alone: the agent has reported the limit as enforced."""
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
