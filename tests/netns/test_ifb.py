"""Traffic that reaches a pod past the node's queue waits in an ifb device inside the pod."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clang import clang
from tests.netns.agent import (
    PATIENCE_S,
    PINS,
    Agent,
    acquaint,
    document,
    limit_of,
    policy,
    received,
    send,
    status,
    tokenbucket,
    wait,
)
from tests.netns.bpf_program import attach_tcx
from tests.netns.lab import Lab, Pod, ip
from tests.netns.stream import stream
from tests.netns.test_bypass import redirect
from tests.netns.test_shadowed import FULL_RUN_S
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import IFB, Hook
from tokenbucket.errors import UnsupportedError
from tokenbucket.netlink.ifb import NAME, delete_ifb, ensure_ifb
from tokenbucket.netlink.links import find_link
from tokenbucket.netlink.namespaces import inside, namespace_at

pytestmark = pytest.mark.exceeds  # the limit is exceeded until counters show the bypass
MANY = 200
RATE = 4_000_000
SIZE = 1200
LIMIT = {"rate": {"bits": "4M"}, "burst": {"bytes": "8Ki"}, "maxDelay": "1s"}
COUNT = RATE // 2 // 8 // SIZE
"""Packets for half a second."""
NEEDED = pytest.mark.needs("sch_fq", "tcx", "ifb")


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide a client, and a pod to limit."""
    client, web = lab.pod("client", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    return client, web


@pytest.fixture
def own_pins() -> Iterator[Pins]:
    """Provide a folder for stubs that continue with another program."""
    pins = Pins(PINS.root.with_name("netns_ifb"))
    pins.maps.mkdir(parents=True)
    yield pins
    Tcx(pins).detach_all()
    pins.remove()


@pytest.fixture
def agent(agent: Agent, pods: tuple[Pod, Pod], tmp_path: Path) -> Agent:
    """Provide an agent that is not started.
    A program redirects the client's packets to the pod, past the host-side veth.
    """
    clang(Path(__file__).parent / "programs" / "redirect_peer.c", tmp_path / "redirect_peer.o")
    redirect(tmp_path / "redirect_peer.o", *pods)
    return agent


def devices(pod: Pod) -> str:
    """Return the ifb devices of a pod."""
    return ip("-oneline", "link", "show", "type", "ifb", netns=pod.netns)


def hooks(direction: str = "ingress") -> list[str]:
    return [
        hook["attachment"] for limit in status() if limit["direction"] == direction for hook in limit["hooks"]
    ]


def limited(agent: Agent, client: Pod, web: Pod, **limit: object) -> None:
    """Start an agent with a Delay limit, and send until the limit is inside the pod."""
    agent.write("policy.yaml", policy("web", app="web", ingress={**LIMIT, **limit}))
    agent.write("pods.yaml", document(web))
    agent.start(full_pass_s=FULL_RUN_S)

    def moved() -> bool:
        send(client, web, 500)
        return hooks() == ["pod tcx/ingress", "pod tcx/egress"]

    wait(moved, agent.log)


def complaints(agent: Agent) -> list[str]:
    """Return the reasons, except that packets bypass the node. That reason moves the limit."""
    found = (each["reason"] for each in agent.events("limit not enforced as declared"))
    return [reason for reason in found if reason != "Bypassed"]


@pytest.mark.needs("tcx", "ifb")
def test_packets_are_redirected_only_while_the_device_is_there(
    pods: tuple[Pod, Pod], own_pins: Pins, drop_program: int
) -> None:
    """Without the device, packets reach the next program at once. In this test, it drops all packets."""
    client, web = pods
    tcx = Tcx(own_pins)
    tcx.stubs.dispatch.point_to(dict.fromkeys(Hook, drop_program))
    namespace = namespace_at(web.path)
    with inside(namespace) as connection:
        eth0 = find_link(connection, "eth0").ifindex
        connection.call(lambda: tcx.attach(namespace.inode, eth0, Hook.INGRESS, 1, redirects=True))
        assert send(client, web, MANY) == 0
        ensure_ifb(connection, IFB)
        assert send(client, web, MANY) == MANY
        delete_ifb(connection, IFB)
        assert send(client, web, MANY) == 0
        tcx.detach(namespace.inode, eth0, Hook.INGRESS)
    assert send(client, web, MANY) == MANY


@pytest.mark.needs("ifb")
@pytest.mark.parametrize("there", [("index", str(IFB), "name", "other"), ("name", NAME)])
def test_a_device_of_the_pod_stays_as_it_is(lab: Lab, there: tuple[str, ...]) -> None:
    """The pod's device has the index or the name of tokenbucket's device."""
    web = lab.pod("web", ["10.2.1.2/24"])
    ip("link", "add", *there, "type", "ifb", netns=web.netns)
    before = devices(web)
    with inside(namespace_at(web.path)) as connection:
        with pytest.raises(UnsupportedError, match=r"interface other has the index|the name tokenbucket"):
            ensure_ifb(connection, IFB)
        delete_ifb(connection, IFB)
    assert devices(web) == before


@pytest.mark.needs("ifb")
def test_a_device_is_adopted_and_set_up(lab: Lab) -> None:
    """A killed agent may leave the device in any state."""
    web = lab.pod("web", ["10.2.1.2/24"])
    with inside(namespace_at(web.path)) as connection:
        ensure_ifb(connection, IFB)
        ip("link", "set", NAME, "down", netns=web.netns)
        ensure_ifb(connection, IFB)
        assert "UP" in devices(web)
        delete_ifb(connection, IFB)
        delete_ifb(connection, IFB)
    assert devices(web) == ""


_RECEIVE = """
import socket, sys, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
server.bind((sys.argv[1], 9))
server.settimeout(240)
print('ready', flush=True)
times = [server.recv(2048) and time.monotonic() for _ in range(int(sys.argv[2]))]
print(times[-1] - times[0])
"""


def drained(pod: Pod) -> None:
    """Wait until no packet arrives for a second, which is the longest delay of a queue."""
    last = -1
    while (now := received(pod)) != last:
        last = now
        time.sleep(1)


@NEEDED
def test_redirected_packets_arrive_later_and_none_is_lost(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """No packet arrives early: half a second's worth of packets takes half a second at any sending rate."""
    client, web = pods
    limited(agent, client, web)
    drained(web)
    delayed = limit_of("web")["delayedPackets"]
    command = ("/usr/bin/python3", "-c", _RECEIVE, str(web.ip), str(COUNT))
    server = web.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout.readline() == "ready\n"
    send(client, web, COUNT, SIZE)
    output, _ = server.communicate(timeout=PATIENCE_S)
    assert limit_of("web")["delayedPackets"] > delayed
    assert float(output) >= 0.95 * (COUNT * (SIZE + 42) * 8 - 8192 * 8) / RATE
    assert complaints(agent) == []


@NEEDED
def test_an_agent_adopts_the_device_and_removes_it_with_the_limit(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """The next agent attaches nothing. The queued packets arrive after the policy is deleted."""
    client, web = pods
    limited(agent, client, web)
    there, attached = devices(web), len(agent.events("attached"))
    agent.stop()
    agent.start(full_pass_s=FULL_RUN_S)
    time.sleep(3 * FULL_RUN_S)
    assert len(agent.events("attached")) == attached
    assert devices(web) == there
    before = received(web)
    send(client, web, COUNT, SIZE)
    agent.write("policy.yaml", "")
    wait(lambda: not devices(web), agent.log)
    assert received(web) - before == COUNT
    assert complaints(agent) == []


@NEEDED
@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(("ip", "link", "delete", NAME), id="device"),
        pytest.param(("tc", "qdisc", "delete", "dev", NAME, "root"), id="queue"),
    ],
)
def test_a_deleted_device_or_queue_is_restored(
    agent: Agent, pods: tuple[Pod, Pod], disturb: tuple[str, ...]
) -> None:
    """In the meantime, the rate does not rise. Excess packets are dropped or get a shorter delay."""
    client, web = pods
    limited(agent, client, web)
    before, start, queues = received(web), time.monotonic(), len(agent.events("queue added"))
    with stream(client, web, SIZE, 0.001):
        web.run(*disturb)
        wait(lambda: len(agent.events("queue added")) > queues, agent.log)
        wait(lambda: hooks() == ["pod tcx/ingress", "pod tcx/egress"], agent.log)
        at_most_s = time.monotonic() - start + 1  # the longest delay
    assert received(web) - before <= (at_most_s * RATE / 8 + 8192) / (SIZE + 42) + 1


@NEEDED
def test_redirection_ends_if_the_pod_has_its_own_program(
    agent: Agent, pods: tuple[Pod, Pod], pass_program: int
) -> None:
    """Packets that return from the device skip later programs, so excess packets are dropped instead."""
    client, web = pods
    limited(agent, client, web)
    theirs = web.inside(lambda: attach_tcx(socket.if_nametoindex("eth0"), "ingress", pass_program))
    wait(lambda: complaints(agent), agent.log)
    wait(lambda: hooks() == ["pod tcx/ingress"] and not devices(web), agent.log)
    os.close(theirs)
    assert set(complaints(agent)) == {"NoQueueInPod"}


@NEEDED
def test_detach_all_leaves_no_device(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    client, web = pods
    limited(agent, client, web)
    agent.stop()
    assert tokenbucket("detach", "--all").stdout.startswith("2 ")
    assert devices(web) == ""
    assert not PINS.root.exists()
    assert send(client, web, MANY) == MANY
