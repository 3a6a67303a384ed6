"""Pods that bypass Delay of their egress traffic, and the guard on the node that bounds them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns import bpf_program
from tests.netns.agent import Agent, acquaint, limit_of, received, send, wait
from tests.netns.lab import Lab, Pod
from tests.netns.test_raw_sockets import SOL_PACKET, mac

pytestmark = pytest.mark.needs("sch_fq")
PACKET_QDISC_BYPASS = 20
BITS_PER_S, SIZE, COUNT = 400_000, 1200, 3000
LIMIT = {"rate": {"bits": "400k"}, "burst": {"bytes": "8Ki"}, "maxDelay": "25ms"}
FRAME = SIZE + 42
TCP_BYTES = 1_500_000


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide a pod to limit, and a pod that it sends to."""
    web, sink = lab.pod("web", ["10.2.1.2/24"]), lab.pod("sink", ["10.1.1.2/24"])
    acquaint(web, sink)
    return web, sink


def limited(agent: Agent, web: Pod, *options: str, **limit: object) -> None:
    """Wait for the limit and its guard."""
    agent.start(*options)
    agent.limit(web, egress={**LIMIT, **limit})
    wait(lambda: len(agent.events("attached")) == 2, agent.log)


def guard() -> dict[str, Any]:
    limit = limit_of("web", "egress")
    assert limit
    return limit["guard"]


def send_past_traffic_control(web: Pod, sink: Pod) -> None:
    """Send UDP packets by a packet socket, as a pod with CAP_NET_RAW can."""
    udp = struct.pack("!HHHH", 1, 9, SIZE + 8, 0) + bytes(SIZE)
    header = struct.pack("!BBHHHBB", 0x45, 0, 28 + SIZE, 1, 0, 64, socket.IPPROTO_UDP)
    addresses = web.ip.packed + sink.ip.packed
    total = sum(struct.unpack("!9H", header + addresses))
    checksum = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    frame = mac(web.veth) + mac("eth0", web.netns) + b"\x08\x00" + header + checksum + addresses + udp
    with web.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sock.bind(("eth0", 0))
        for _ in range(COUNT):
            sock.send(frame)


def send_without_the_program(web: Pod, sink: Pod) -> None:
    """Remove the program, as a pod with CAP_NET_ADMIN can."""
    web.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    send(web, sink, COUNT, SIZE)


def send_without_the_queue(web: Pod, sink: Pod) -> None:
    """Remove the queue, as a pod with CAP_NET_ADMIN can. Packets with a departure time then leave at once."""
    web.run("tc", "qdisc", "del", "dev", "eth0", "root")
    send(web, sink, COUNT, SIZE)


@pytest.mark.exceeds
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (send_past_traffic_control, ()),
        (send_without_the_program, ("--attach", "clsact")),
        (send_without_the_queue, ()),
    ],
)
def test_a_pod_that_bypasses_delay_gets_the_rate_and_the_burst_of_the_guard(
    agent: Agent, pods: tuple[Pod, Pod], attack: Callable[[Pod, Pod], None], options: tuple[str, ...]
) -> None:
    """The bound does not depend on the agent, which would repair the limit."""
    web, sink = pods
    limited(agent, web, *options)
    agent.stop()
    burst, before, start_s = guard()["burstBytes"], received(sink), time.monotonic()
    attack(web, sink)
    size = (received(sink) - before) * FRAME
    assert size <= BITS_PER_S / 8 * (time.monotonic() - start_s) + burst + FRAME


@pytest.mark.exceeds
def test_packets_that_bypass_delay_are_counted_by_the_guard(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The counter shows which pod bypasses Delay. The guard drops no packet of other pods."""
    web, sink = pods
    limited(agent, web)
    before = received(sink)
    send_past_traffic_control(web, sink)
    wait(lambda: received(sink) - before + guard()["droppedPackets"] == COUNT)
    assert received(sink) - before < COUNT


def test_traffic_within_the_limit_loses_no_packet_to_the_guard(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """Send TCP, whose queue is always full, and floods of large and of small packets. Small packets pass
    early.
    """
    web, sink = pods
    limited(agent, web, rate={"bits": "4M"})
    assert transfer(web, sink) == TCP_BYTES
    for size in (SIZE, 60):
        send(web, sink, COUNT, size)
    limit = limit_of("web", "egress")
    assert limit
    assert limit["exceedPackets"] > 0
    assert (guard()["droppedPackets"], guard()["hooks"][0]["interface"]) == (0, web.veth)


def transfer(web: Pod, sink: Pod) -> int:
    """Send bytes by TCP. Return how many arrive."""
    arrived = 0

    def receive(server: socket.socket) -> None:
        nonlocal arrived
        connection, _ = server.accept()
        with connection:
            while part := connection.recv(1 << 16):
                arrived += len(part)

    with sink.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((str(sink.ip), 80))
        server.listen()
        receiver = threading.Thread(target=receive, args=(server,))
        receiver.start()
        with web.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(server.getsockname())
            client.sendall(bytes(TCP_BYTES))
        receiver.join()
    return arrived


@pytest.mark.needs("tcx")
def test_a_guard_that_does_not_run_is_reported_and_the_limit_counts_as_enforced(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """A program of others before the guard ends the processing of packets, and tcx is disabled."""
    web, _ = pods
    limited(agent, web, "--attach", "clsact")
    program = bpf_program.verdict_program(bpf_program.OK, "final_verdict")
    bpf_program.attach_tcx(web.ifindex, "ingress", program)
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert (event["limit"], event["reason"]) == ("default/web egress", "NoGuard")
    assert event["detail"].startswith("guard: final_verdict")
