"""An agent whose attachment is rejected does not spin."""

from __future__ import annotations

import time

import pytest

from tests.netns.agent import Agent, document, drop, policy, wait
from tests.netns.lab import Lab, tc

_CLSACT = ("qdisc", "add", "dev", "{0}", "clsact")
_FILTER = ("filter", "add", "dev", "{0}", "egress", "prio", "1", "protocol")
_MATCH = ("u32", "match", "u32", "0", "0", "flowid", "1:1")
_WINDOW_S, _MOST = 4.0, 60
"""A run takes about ten requests. There are a few retries, and a check that limits run."""


@pytest.mark.parametrize(
    "commands",
    [
        [("qdisc", "add", "dev", "{0}", "ingress_block", "21", "egress_block", "22", "clsact")],
        [_CLSACT, (*_FILTER, "all", *_MATCH)],
        [_CLSACT, (*_FILTER, "ip", *_MATCH)],
        [("qdisc", "add", "dev", "{0}", "ingress")],
    ],
    ids=["shared block", "u32", "protocol ip", "ingress qdisc"],
)
def test_a_rejected_attachment_causes_few_runs(
    lab: Lab, agent: Agent, commands: list[tuple[str, ...]]
) -> None:
    """The agent's own attempts trigger no runs, which would read the kernel dozens of times a second."""
    web = lab.pod("web", ["10.2.1.2/24"])
    for command in commands:
        tc(*(word.format(web.veth) for word in command))
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, 10)))
    agent.write("pods.yaml", document(web, app="web"))
    agent.start("--attach", "clsact")
    wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    before = requests(agent)
    time.sleep(_WINDOW_S)
    assert requests(agent) - before <= _MOST


@pytest.mark.needs("macvlan")
@pytest.mark.parametrize(
    ("obstacle", "cause", "removal"),
    [
        (["qdisc add dev net1 ingress"], "ingress", "qdisc delete dev net1 ingress"),
        (
            ["qdisc add dev net1 ingress_block 21 egress_block 22 clsact"],
            "Operation not supported",
            "qdisc delete dev net1 clsact",
        ),
        (
            [
                "qdisc add dev net1 clsact",
                "filter add dev net1 egress prio 1 protocol ip u32 match u32 0 0 flowid 1:1",
            ],
            "u32",
            "filter delete dev net1 egress prio 1",
        ),
    ],
    ids=["ingress qdisc", "shared block", "u32"],
)
def test_a_rejection_inside_a_pod_causes_few_runs_and_ends_with_its_cause(
    lab: Lab, agent: Agent, obstacle: list[str], cause: str, removal: str
) -> None:
    """The agent's attempts in the pod trigger no runs. A change by others in the pod triggers one."""
    web = lab.pod("web", wire=False)
    web.addresses.append("10.8.0.3/24")
    lab.add_upper(web, "net1", *web.addresses, "macvlan")
    for words in obstacle:
        web.run("tc", *words.split())
    agent.write("policy.yaml", policy("web", app="web", egress=drop(1, 10)))
    agent.write("pods.yaml", document(web, app="web"))
    agent.start("--attach", "clsact", full_pass_s=600.0)  # a full run would try again
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "InterfaceNotLimited"
    assert event["detail"].startswith("the pod's net1: ")
    assert cause in event["detail"]
    before = requests(agent)
    time.sleep(_WINDOW_S)
    assert requests(agent) - before <= _MOST
    web.run("tc", *removal.split())
    wait(lambda: agent.events("attached"), agent.log)
    wait(lambda: agent.events("reason no longer applies"), agent.log)


def requests(agent: Agent) -> int:
    """Return the netlink requests of an agent, from the log of pyroute2."""
    return sum(line["event"].startswith("get: ") for line in agent.lines())
