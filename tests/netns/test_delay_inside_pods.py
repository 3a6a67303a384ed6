"""Delay of the egress traffic of pods, inside their network namespaces, so that the sender waits."""

from __future__ import annotations

import json
import time

import pytest

from tests.netns.agent import (
    Agent,
    acquaint,
    document,
    limit_of,
    policy,
    received,
    send,
    tokenbucket,
    wait,
)
from tests.netns.lab import Lab, Pod, tc

pytestmark = pytest.mark.needs("sch_fq")
CLSACT = ("--attach", "clsact")
"""A mechanism that a pod can interfere with. A pod cannot remove a tcx link."""
RATE = 4_000_000
SIZE = 1200
LIMIT = {"rate": {"bits": "4M"}, "burst": {"bytes": "8Ki"}, "maxDelay": "1s"}


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide a pod to limit, and a pod that it sends to."""
    web, sink = lab.pod("web", ["10.2.1.2/24"]), lab.pod("sink", ["10.1.1.2/24"])
    acquaint(web, sink)
    return web, sink


def limited(agent: Agent, web: Pod, **limit: object) -> None:
    if not agent.process:
        agent.start(*CLSACT)
    agent.limit(web, egress={**LIMIT, **limit})


def inside(pod: Pod) -> tuple[str, list[str]]:
    """Return the kind of the root qdisc of the pod's own interface, and the names of the filters there."""
    qdiscs = json.loads(pod.run("tc", "-json", "qdisc", "show", "dev", "eth0"))
    kinds = [each["kind"] for each in qdiscs if "root" in each]
    filters = []
    if any(each["kind"] == "clsact" for each in qdiscs):
        shown = json.loads(pod.run("tc", "-json", "filter", "show", "dev", "eth0", "egress"))
        filters = [each["options"]["bpf_name"] for each in shown if "bpf_name" in each.get("options", {})]
    return kinds[0], filters


def on_the_node(pod: Pod) -> str:
    """Return the filters at the host-side hook that sees the pod's egress traffic."""
    return tc("filter", "show", "dev", pod.veth, "ingress")


def attachments() -> list[str]:
    """Return where the limit is attached, as ``tokenbucket status`` shows it."""
    limit = limit_of("web", "egress")
    return [hook["attachment"] for hook in limit["hooks"]] if limit else []


def test_the_sender_waits_and_nothing_is_lost(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """One second's worth of packets takes one second, less the burst."""
    web, sink = pods
    limited(agent, web)
    before, start = received(sink), time.monotonic()
    count = RATE // 8 // SIZE  # more than the socket buffer holds
    send(web, sink, count, SIZE)
    wait(lambda: received(sink) - before == count)
    bits = count * (SIZE + 42) * 8 - 8192 * 8
    assert time.monotonic() - start >= 0.99 * bits / RATE
    limit = limit_of("web", "egress")
    assert limit
    assert (limit["exceedPackets"], limit["exceedAction"]) == (0, "Delay")
    assert limit["delayedPackets"] > count / 2
    assert limit["hooks"] == [{"interface": "eth0", "hook": "egress", "attachment": "pod clsact/egress"}]
    assert limit["guard"]["droppedPackets"] == 0


def test_a_limit_that_a_pod_removes_is_restored(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The agent restores the filter and the queue."""
    web, _ = pods
    limited(agent, web)
    there = inside(web)
    for removal in (("root",), ("clsact",)):
        web.run("tc", "qdisc", "del", "dev", "eth0", *removal)
        wait(lambda: inside(web) == there, agent.log)


@pytest.mark.parametrize(("removed", "reason"), [("clsact", "ContendedInPod"), ("root", "NoFq")])
def test_a_pod_that_keeps_removing_its_limit_is_limited_on_the_node(
    agent: Agent, pods: tuple[Pod, Pod], removed: str, reason: str
) -> None:
    """The agent limits the pod on the node instead.
    Excess packets are dropped there, and the agent reports the reason.
    """
    web, sink = pods
    agent.start(*CLSACT, full_pass_s=600.0)  # a new run would retry
    limited(agent, web)
    with web.popen(
        "sh", "-c", f"while sleep 0.1; do tc qdisc del dev eth0 {removed}; done 2>/dev/null"
    ) as loop:
        (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
        loop.kill()
    assert event["reason"] == reason
    assert attachments() == ["clsact/ingress"]
    assert limit_of("web", "egress")["exceedAction"] == "Drop"
    assert send(web, sink, 1000, SIZE) < 1000


@pytest.mark.parametrize(
    "taken",
    [
        ["qdisc add dev eth0 ingress"],
        ["qdisc add dev eth0 egress_block 5 clsact"],
        [
            "qdisc add dev eth0 clsact",
            "filter add dev eth0 egress protocol ip prio 1 bpf bytecode 1,6-0-0-0",
        ],
    ],
    ids=["ingress qdisc", "shared block", "foreign filter"],
)
def test_a_limit_is_on_the_node_if_the_filter_cannot_be_inside(
    agent: Agent, pods: tuple[Pod, Pod], taken: list[str]
) -> None:
    """The change is immediate, also if a filter on the node exists when the policy changes to Delay."""
    web, sink = pods
    for words in taken:
        web.run("tc", *(word.replace("-", " ") for word in words.split(" ")))
    agent.start(*CLSACT, full_pass_s=600.0)  # a new run would retry
    limited(agent, web, exceedAction="Drop", maxDelay=None)
    assert send(web, sink, 1000, SIZE) < 1000
    agent.write("policy.yaml", policy("web", app="web", egress=LIMIT))
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "NoFilterInPod"
    assert attachments() == ["clsact/ingress"]
    assert limit_of("web", "egress")["exceedAction"] == "Drop"
    assert send(web, sink, 1000, SIZE) < 1000
    assert all(each["complete"] for each in agent.events("reconciled"))


def test_nothing_is_left_inside_when_the_limit_is_removed(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The queued packets have arrived."""
    web, sink = pods
    limited(agent, web)
    before = received(sink)
    send(web, sink, 50, SIZE)
    agent.write("policy.yaml", "")
    wait(lambda: agent.events("queue removed"), agent.log)
    assert inside(web) == ("noqueue", [])
    assert on_the_node(web) == ""
    assert received(sink) - before == 50


def test_a_change_between_delay_and_drop_moves_the_hook_and_keeps_the_bucket(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """Change a running limit in both directions."""
    web, sink = pods
    limited(agent, web)
    send(web, sink, 3, SIZE)
    packets = limit_of("web", "egress")["conformPackets"]
    limited(agent, web, exceedAction="Drop", maxDelay=None)
    wait(lambda: inside(web) == ("noqueue", []) and attachments() == ["clsact/ingress"], agent.log)
    assert limit_of("web", "egress")["conformPackets"] >= packets
    limited(agent, web)
    wait(lambda: inside(web)[0] == "fq" and attachments() == ["pod clsact/egress"], agent.log)
    assert [event["new"] for event in agent.events("limit set")] == [True, False, False]


def test_the_next_agent_adopts_the_filters_inside_the_pod(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The next agent adopts the filters and the queue without a change."""
    web, _ = pods
    limited(agent, web)
    wait(lambda: len(agent.events("attached")) == 2, agent.log)  # the limit and its guard
    agent.stop()
    agent.start(*CLSACT)
    agent.write("pods.yaml", document(web, app="web", role="front"))
    wait(lambda: limit_of("web", "egress"), agent.log)
    assert len(agent.events("attached")) == 2


def test_a_slot_is_not_freed_while_a_filter_inside_a_pod_names_it(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """A new agent does not know the filter yet.
    If it freed the slot, the next owner would be charged for this pod.
    """
    web, _ = pods
    limited(agent, web)
    agent.stop()
    agent.write("policy.yaml", "")
    agent.start(*CLSACT)
    wait(lambda: agent.events("limit removed"), agent.log)
    assert inside(web)[1] == []
    assert agent.log().index('"detached"') < agent.log().index('"limit removed"')


def test_a_foreign_root_qdisc_inside_stays_and_excess_packets_are_dropped(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """The agent drops excess packets on the node's end."""
    web, sink = pods
    web.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "5:", "pfifo")
    limited(agent, web)
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "ForeignQdisc"
    assert inside(web)[0] == "pfifo"
    assert send(web, sink, 1000, SIZE) < 1000


def test_excess_packets_are_dropped_without_the_right_to_enter_pods(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """The agent reports the reason."""
    web, sink = pods
    agent.prefix = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--")
    limited(agent, web)
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "NoNamespace"
    assert inside(web) == ("noqueue", [])
    assert send(web, sink, 1000, SIZE) < 1000


def test_detach_all_leaves_nothing_inside(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The command works without an agent."""
    web, _ = pods
    limited(agent, web)
    agent.stop()
    tokenbucket("detach", "--all")
    assert inside(web) == ("noqueue", [])
    assert on_the_node(web) == ""
