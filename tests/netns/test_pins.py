"""Limits by tcx whose pins are removed, for example with the folder of tokenbucket in the bpffs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.agent import PATIENCE_S, PINS, Agent, acquaint, document, drop, policy, send, status, wait
from tests.netns.lab import Lab, Pod
from tests.netns.recorder import Recorder

pytestmark = pytest.mark.needs("tcx")

BURST = 10
MANY = 200
FULL_RUN_S = 0.3


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide a pod to limit and another pod."""
    web, client = lab.pod("web", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    acquaint(web, client)
    return web, client


def limit_packets(pods: tuple[Pod, Pod]) -> bool:
    """Return whether the limits drop packets in both directions."""
    web, client = pods
    return send(web, client, MANY) < MANY and send(client, web, MANY) < MANY


def links() -> Path:
    return PINS.links


def stubs() -> Path:
    return PINS.folder / "stubs"


def program_array() -> Path:
    return PINS.maps / "tb_dispatch"


def remove(path: Path) -> None:
    """Remove a pin, or a folder of pins."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def attached(agent: Agent, recorder: Recorder, pods: tuple[Pod, Pod]) -> tuple[Pod, Pod]:
    """Attach limits by tcx, in both directions."""
    web, _ = pods
    both = {direction: drop(1, BURST) for direction in ("ingress", "egress")}
    agent.write("policies.yaml", policy("web", app="web", **both))
    agent.write("pods.yaml", document(web))
    agent.start("--attach", "tcx")
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    recorder.stop()
    return pods


@pytest.mark.parametrize("pins", [links, stubs, program_array])
def test_limits_outlive_the_removal_of_their_pins(
    agent: Agent, attached: tuple[Pod, Pod], pins: Callable[[], Path]
) -> None:
    """Remove what keeps links and programs without an agent, while the agent runs."""
    remove(pins())
    wait(lambda: limit_packets(attached), agent.log)


@pytest.mark.parametrize("pins", [stubs, program_array])
def test_the_next_agent_replaces_attachments_that_have_lost_their_pins(
    agent: Agent, attached: tuple[Pod, Pod], pins: Callable[[], Path]
) -> None:
    """Remove them while no agent runs. The kernel empties the program array then."""
    agent.stop()
    remove(pins())
    agent.start("--attach", "tcx")
    wait(lambda: limit_packets(attached), agent.log)
    assert len(status()) == 2


def test_a_running_agent_restores_the_pin_of_the_program_array(
    agent: Agent, attached: tuple[Pod, Pod]
) -> None:
    """Without it, packets pass between the end of the agent and the start of the next one."""
    agent.stop()
    agent.start("--attach", "tcx", full_pass_s=FULL_RUN_S)
    remove(program_array())
    wait(program_array().exists, agent.log)
    agent.stop()
    assert limit_packets(attached)


def test_an_agent_whose_pins_are_removed_ends_and_the_next_one_limits_again(
    agent: Agent, attached: tuple[Pod, Pod]
) -> None:
    """A running agent cannot pin its maps again, and must not report limits that the kernel has lost."""
    agent.stop()
    agent.start("--attach", "tcx", full_pass_s=600.0)  # a full run would notice it too
    assert agent.process
    shutil.rmtree(PINS.root)
    assert agent.process.wait(PATIENCE_S) == 1
    assert "start the agent again" in agent.log()
    agent.start("--attach", "tcx")
    wait(lambda: limit_packets(attached), agent.log)
