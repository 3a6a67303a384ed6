"""Departure times that sockets request, by SO_TXTIME or by a pacing rate: they do not fill the queue, and the
queue is removed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.agent import Agent, acquaint, limit_of, wait
from tests.netns.lab import Lab, Pod

pytestmark = pytest.mark.needs("sch_fq")
HELD_BYTES = 16 * 2**20
_SEND = """
import socket, struct, sys, time
address, ahead_s, count, segment = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, 32, 1 << 30)  # SO_SNDBUFFORCE
if ahead_s:
    sender.setsockopt(socket.SOL_SOCKET, 61, struct.pack("=iI", time.CLOCK_MONOTONIC, 0))  # SO_TXTIME
else:
    sender.setsockopt(socket.SOL_SOCKET, 47, 8)  # SO_MAX_PACING_RATE, in bytes per second
if segment:
    sender.setsockopt(socket.SOL_UDP, 103, segment)  # UDP_SEGMENT
size = 40 * segment or 100
for _ in range(count):
    departs = struct.pack("=Q", time.monotonic_ns() + int(ahead_s * 1e9))
    try:
        sender.sendmsg([bytes(size)], [(socket.SOL_SOCKET, 61, departs)] * bool(ahead_s), 0, (address, 9))
    except OSError:
        pass
print("sent", flush=True)
sys.stdin.read()
"""


def held(pod: Pod, limited: str) -> int:
    """Return the bytes in the queue of the limited direction."""
    where = ["nsenter", f"--net={pod.path}"] if limited == "egress" else []
    device = "eth0" if limited == "egress" else pod.veth
    shown = subprocess.check_output([*where, "tc", "-json", "-s", "qdisc", "show", "dev", device])
    return sum(each["backlog"] for each in json.loads(shown) if each["kind"] == "fq")


@contextmanager
def sending(source: Pod, target: Pod, ahead_s: float, count: int, segment: int) -> Iterator[None]:
    """Send that many packets, each with a departure time so far ahead, and keep the socket open.

    If ``ahead_s`` is 0, the socket has a pacing rate of 8 bytes per second.
    """
    arguments = (str(target.ip), str(ahead_s), str(count), str(segment))
    with source.popen(
        "python3", "-c", _SEND, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == "sent"
        yield
        process.kill()


@pytest.mark.parametrize(
    ("burst", "ahead_s", "segment"),
    [("32Ki", 600, 1200), ("64Mi", 600, 1200), ("64Mi", 0.09, 1200), ("32Ki", 600, 0), ("64Mi", 0, 1200)],
    ids=["exceeding", "conforming", "conforming and soon", "small", "paced by the socket"],
)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_queue_holds_at_most_16_mib_and_nothing_after_its_limit(
    lab: Lab, agent: Agent, direction: str, burst: str, ahead_s: float, segment: int
) -> None:
    """Bound the packets of senders that conform and that exceed, inside and outside the pod."""
    sender, web = lab.pod("sender", ["10.1.1.2/24"]), lab.pod("web", ["10.2.1.2/24"])
    acquaint(sender, web)
    limit = {"rate": {"bits": "100M"}, "burst": {"bytes": burst}, "exceedAction": "Delay"}
    agent.start()
    agent.limit(web, **{direction: limit})
    wait(lambda: (limit_of("web", direction) or {}).get("exceedAction") == "Delay", agent.log)
    source, target = (sender, web) if direction == "ingress" else (web, sender)
    count = 700 if segment else 5000
    with sending(source, target, ahead_s, count, segment):
        assert held(web, direction) <= HELD_BYTES
        wait(lambda: ahead_s or not held(web, direction), agent.log)
    agent.write("policy.yaml", "")
    wait(lambda: not held(web, direction), agent.log)
