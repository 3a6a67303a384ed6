"""Delay on a node with pods: excess packets arrive later instead of being dropped."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests import rungs
from tests.netns.agent import (
    PATIENCE_S,
    Agent,
    acquaint,
    limit_of,
    policy,
    received,
    send,
    tokenbucket,
    wait,
)
from tests.netns.lab import Lab, Pod, ifindex, tc
from tests.netns.stream import sizes_of

RATE = 4_000_000
SIZE = 1200
LIMIT = {"rate": {"bits": "4M"}, "burst": {"bytes": "8Ki"}, "maxDelay": "1s"}


@pytest.fixture
def pods(lab: Lab) -> tuple[Pod, Pod]:
    """Provide a client, and a pod to limit."""
    client, web = lab.pod("client", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, web)
    return client, web


def limited(agent: Agent, web: Pod, **limit: object) -> None:
    agent.limit(web, ingress={**LIMIT, **limit})


def root(pod: Pod) -> dict:
    """Return the root qdisc of a pod's host-side interface."""
    return next(
        each for each in json.loads(tc("-json", "-s", "qdisc", "show", "dev", pod.veth)) if "root" in each
    )


@pytest.mark.needs("sch_fq")
def test_excess_packets_arrive_later_and_none_is_lost(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """No packet arrives early: half a second's worth of packets takes half a second."""
    client, web = pods
    limited(agent, web)
    before, start = received(web), time.monotonic()
    count = RATE // 2 // 8 // SIZE
    send(client, web, count, SIZE)
    wait(lambda: received(web) - before == count)
    bits = count * (SIZE + 42) * 8 - 8192 * 8
    assert time.monotonic() - start >= 0.99 * bits / RATE
    limit = limit_of("web")
    assert limit["delayedPackets"] > count / 2
    assert limit["exceedPackets"] == 0
    assert root(web)["kind"] == "fq"


_SEND_LARGE_AND_SMALL = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for size in [int(sys.argv[2])] * int(sys.argv[3]) + [50] * 5:
    client.sendto(bytes(size), (sys.argv[1], 9))
"""


@pytest.mark.needs("sch_fq")
def test_small_packets_do_not_wait_behind_large_ones(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """Small packets are sent after half a second of bulk, and arrive while the bulk is queued."""
    client, web = pods
    limited(agent, web)
    count = RATE // 2 // 8 // SIZE
    with sizes_of(web, count + 5) as sizes:
        client.run("/usr/bin/python3", "-c", _SEND_LARGE_AND_SMALL, str(web.ip), str(SIZE), str(count))
    assert sizes.index(50) < count - 50
    assert sizes[-50:] == [SIZE] * 50


_SEND_MANY_FLOWS = """
import socket, sys
sizes = [int(sys.argv[2])] * int(sys.argv[3]) + [50] * 200
flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in sizes]
for flow in flows:
    flow.connect((sys.argv[1], 9))
for size, flow in zip(sizes, flows):
    flow.send(bytes(size))
"""


@pytest.mark.needs("sch_fq")
def test_small_packets_do_not_wait_behind_bulk_of_hundreds_of_flows(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """Before Linux 6.7, fq keeps one order for flows with the same hash. With its default number of hashes, a
    fifth of these small packets waits behind bulk. In a fair queue, no flow of one packet waits.
    """
    client, web = pods
    limited(agent, web, queue="Fifo")
    count = RATE // 2 // 8 // SIZE
    with sizes_of(web, count + 200) as sizes:
        client.run("/usr/bin/python3", "-c", _SEND_MANY_FLOWS, str(web.ip), str(SIZE), str(count))
    assert sizes[-100:].count(50) <= 5


_SEND_BULK_AND_A_REQUEST = """
import socket, sys
for size, count in ((int(sys.argv[2]), int(sys.argv[3])), (int(sys.argv[4]), 5)):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # a flow
    for _ in range(count):
        client.sendto(bytes(size), (sys.argv[1], 9))
"""


@pytest.mark.needs("sch_fq")
@pytest.mark.parametrize("queue", [{}, {"queue": "Fifo"}], ids=["default", "Fifo"])
def test_a_request_does_not_wait_behind_bulk_in_a_fair_queue(
    agent: Agent, pods: tuple[Pod, Pod], queue: dict[str, str]
) -> None:
    """Send a request of large packets behind half a second of another flow: it arrives first, or last."""
    client, web = pods
    limited(agent, web, **queue)
    count, request = RATE // 2 // 8 // SIZE, 1000
    words = map(str, (web.ip, SIZE, count, request))
    with sizes_of(web, count + 5) as sizes:
        client.run("/usr/bin/python3", "-c", _SEND_BULK_AND_A_REQUEST, *words)
    if queue:
        assert sizes[-5:] == [request] * 5
    else:
        assert sizes[-50:] == [SIZE] * 50


@pytest.mark.needs("sch_fq")
def test_the_backlog_is_at_most_the_longest_delay(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The backlog is bounded. Packets beyond the bound are dropped."""
    client, web = pods
    rate = RATE // 10  # even a slow machine sends faster than this
    limited(agent, web, rate={"bits": rate}, maxDelay="100ms")
    before, start = received(web), time.monotonic()
    send(client, web, 400, SIZE)
    drained = (time.monotonic() - start) * rate / 8 / (SIZE + 42)
    wait(lambda: root(web)["backlog"] == 0)
    room = (8192 + rate // 80) // (SIZE + 42)
    assert room - 5 <= received(web) - before <= room + drained + 1
    assert limit_of("web")["exceedPackets"] > 200


@pytest.mark.needs("sch_fq")
def test_packets_with_a_delay_above_ten_seconds_are_not_dropped(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """At 8 kbit/s, a packet takes more than a second. By default, fq drops packets beyond ten seconds."""
    client, web = pods
    limited(agent, web, rate={"bits": "8k"}, burst={"bytes": "1Ki"}, maxDelay=None)
    send(client, web, 12, SIZE)
    limit = limit_of("web")
    assert (limit["delayedPackets"], limit["exceedPackets"]) == (11, 0)
    assert root(web)["drops"] == 0


@pytest.mark.needs("sch_fq")
def test_a_queue_is_removed_when_it_is_empty(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The policy is deleted while packets are queued."""
    client, web = pods
    limited(agent, web)
    before = received(web)
    count = RATE // 2 // 8 // SIZE
    send(client, web, count, SIZE)
    agent.write("policy.yaml", "")
    wait(lambda: agent.events("queue removed"), agent.log)
    assert received(web) - before == count
    assert root(web)["kind"] == "noqueue"


_SEND_LATE = """
import socket, struct, sys, time
SO_TXTIME = SCM_TXTIME = 61
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, SO_TXTIME, struct.pack('iI', time.CLOCK_MONOTONIC, 0))
print('ready', flush=True)
sys.stdin.readline()
due = struct.pack('Q', time.monotonic_ns() + 600 * 10**9)
for _ in range(100):
    client.sendmsg([bytes(100)], [(socket.SOL_SOCKET, SCM_TXTIME, due)], 0, (sys.argv[1], 9))
"""


@pytest.mark.needs("sch_fq")
def test_a_queue_without_a_limit_holds_no_new_packets(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """After the limit is removed, no program bounds departure times.
    A departure in ten minutes must not keep the queue.
    """
    client, web = pods
    limited(agent, web, rate={"bits": "8k"}, burst={"bytes": "1Ki"}, maxDelay=None)
    words = ("/usr/bin/python3", "-c", _SEND_LATE, str(web.ip))
    late = client.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert late.stdout and late.stdout.readline() == "ready\n"
    before = received(web)
    send(client, web, 12, SIZE)  # at this rate, they take 14 s
    agent.write("policy.yaml", "")
    wait(lambda: agent.events("reconciled")[1:], agent.log)
    late.communicate("\n", timeout=PATIENCE_S)
    assert root(web)["kind"] == "fq"
    wait(lambda: agent.events("queue removed"), agent.log)
    assert received(web) - before == 112


@pytest.mark.needs("sch_fq")
def test_a_removed_queue_is_restored(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The agent restores the queue at once. In the meantime, the program enforces the rate by drops."""
    _, web = pods
    limited(agent, web)
    tc("qdisc", "del", "dev", web.veth, "root")
    wait(lambda: root(web)["kind"] == "fq", agent.log)


@pytest.mark.needs("sch_fq")
def test_a_change_between_delay_and_drop_keeps_the_bucket(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """Change a running limit in both directions."""
    _, web = pods
    limited(agent, web)
    packets = limit_of("web")["conformPackets"]
    for action, kind in (("Drop", "noqueue"), ("Delay", "fq")):
        spec = {"rate": {"bits": "4M"}, "burst": {"bytes": "8Ki"}, "exceedAction": action}
        agent.write("policy.yaml", policy("web", app="web", ingress=spec))
        wait(lambda kind=kind: root(web)["kind"] == kind, agent.log)
        assert limit_of("web")["conformPackets"] >= packets
    assert len(agent.events("limit set")) == 3
    assert [event["new"] for event in agent.events("limit set")] == [True, False, False]


def test_a_foreign_root_qdisc_stays_and_excess_packets_are_dropped(
    agent: Agent, pods: tuple[Pod, Pod]
) -> None:
    """The reason names the foreign qdisc."""
    client, web = pods
    tc("qdisc", "add", "dev", web.veth, "root", "handle", "5:", "pfifo")
    limited(agent, web)
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert (event["reason"], web.veth in event["detail"]) == ("ForeignQdisc", True)
    assert "pfifo qdisc, handle 5:" in event["detail"]
    assert root(web)["kind"] == "pfifo"
    assert send(client, web, 1000, SIZE) < 1000
    tc("qdisc", "del", "dev", web.veth, "root")
    if rungs.missing("sch_fq") is None:
        wait(lambda: root(web)["kind"] == "fq", agent.log)


def test_excess_packets_are_dropped_if_the_kernel_has_no_fq(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """The agent reports the reason. Without a declared burst, it uses the deeper burst of a policer."""
    if rungs.missing("sch_fq") is None:
        pytest.skip("the kernel has sch_fq")
    _, web = pods
    limited(agent, web, burst={})
    (event,) = wait(lambda: agent.events("limit not enforced as declared"), agent.log)
    assert event["reason"] == "NoFq"
    assert limit_of("web")["burstBytes"] == RATE // 16
    assert ifindex(web.veth)


@pytest.mark.needs("sch_fq")
def test_inspect_counts_packets_that_observe_would_delay_or_drop(agent: Agent, pods: tuple[Pod, Pod]) -> None:
    """Each packet is in one row of the table, also if the limit only observes."""
    client, web = pods
    limit = {"rate": {"packets": 10}, "burst": {"packets": 1}, "maxDelay": "1s"}
    agent.limit(web, mode="Observe", ingress=limit)
    assert send(client, web, 50, 1000) == 50
    table = tokenbucket("inspect", "web").stdout.split("CASE")[1].splitlines()[1:5]
    in_window, idle, waiting, refused = (int(line.split()[-1]) for line in table)
    assert in_window + idle + waiting + refused == 50
    assert waiting >= 5
    assert refused >= 20
    assert "would be delayed" in table[2]
