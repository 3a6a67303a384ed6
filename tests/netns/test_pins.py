"""Limits by tcx whose pins are removed, for example with the folder of tokenbucket in the bpffs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.agent import (
    PATIENCE_S,
    PINS,
    Agent,
    acquaint,
    document,
    drop,
    free_slots,
    policy,
    send,
    status,
    wait,
)
from tests.netns.in_process import InProcessAgent
from tests.netns.lab import Lab
from tests.netns.lab import Pod as Network
from tests.netns.recorder import Recorder
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.attachment import AttachMode

pytestmark = pytest.mark.needs("tcx")

BURST = 10
MANY = 200
FULL_RUN_S = 0.3


@pytest.fixture
def pods(lab: Lab) -> tuple[Network, Network]:
    """Provide a pod to limit and another pod."""
    web, client = lab.pod("web", ["10.1.1.2/24"]), lab.pod("client", ["10.1.2.2/24"])
    acquaint(web, client)
    return web, client


def limit_packets(pods: tuple[Network, Network]) -> bool:
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
def attached(agent: Agent, recorder: Recorder, pods: tuple[Network, Network]) -> tuple[Network, Network]:
    """Attach limits by tcx, in both directions."""
    web, _ = pods
    both = {direction: drop(1, BURST) for direction in ("ingress", "egress")}
    agent.write("policies.yaml", policy("web", app="web", **both))
    agent.write("pods.yaml", document(web))
    agent.start("--attach", "tcx", full_pass_s=600.0)  # a full run would notice everything
    wait(lambda: len(agent.events("attached")) == 2, agent.log)
    recorder.stop()
    return pods


@pytest.mark.parametrize("pins", [links, stubs, program_array])
def test_limits_outlive_the_removal_of_their_pins(
    agent: Agent, attached: tuple[Network, Network], pins: Callable[[], Path]
) -> None:
    """Remove what keeps links and programs without an agent, while the agent runs."""
    remove(pins())
    wait(lambda: limit_packets(attached), agent.log)


def test_a_link_that_is_lost_at_once_is_noticed(lab: Lab, tmp_path: Path) -> None:
    """The agent has not read its own attachment yet, so that its programs have not changed in its view."""
    free_slots()
    web = lab.pod("web", ["10.1.1.2/24"])
    pods = [Pod(PodId("default", "web", "web"), {"app": "web"}, frozenset({web.ip}))]
    limits = [parse_policy(policy("web", app="web", ingress=drop(1, BURST)))]
    with InProcessAgent(tmp_path, AttachMode.TCX) as agent:
        agent.reconcile(limits, pods)
        remove(links())
        assert agent.reconciler.verify()
        agent.reconcile(limits, pods)
        assert agent.limited() == {web.veth: {"web"}}
        agent.reconciler.verify()
        assert not agent.reconciler.verify()


@pytest.mark.parametrize("pins", [stubs, program_array])
def test_the_next_agent_replaces_attachments_that_have_lost_their_pins(
    agent: Agent, attached: tuple[Network, Network], pins: Callable[[], Path]
) -> None:
    """Remove them while no agent runs. The kernel empties the program array then."""
    agent.stop()
    remove(pins())
    agent.start("--attach", "tcx")
    wait(lambda: limit_packets(attached), agent.log)
    assert len(status()) == 2


def test_a_running_agent_restores_the_pin_of_the_program_array(
    agent: Agent, attached: tuple[Network, Network]
) -> None:
    """Without it, packets pass between the end of the agent and the start of the next one."""
    agent.stop()
    agent.start("--attach", "tcx", full_pass_s=FULL_RUN_S)
    remove(program_array())
    wait(program_array().exists, agent.log)
    agent.stop()
    assert limit_packets(attached)


def test_an_agent_whose_pins_are_removed_ends_and_the_next_one_limits_again(
    agent: Agent, attached: tuple[Network, Network]
) -> None:
    """A running agent cannot pin its maps again, and must not report limits that the kernel has lost."""
    assert agent.process
    shutil.rmtree(PINS.root)
    assert agent.process.wait(PATIENCE_S) == 1
    assert "start the agent again" in agent.log()
    agent.start("--attach", "tcx")
    wait(lambda: limit_packets(attached), agent.log)
