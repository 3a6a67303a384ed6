"""Mark between real pods: all of it arrives, and what exceeds carries the code point."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.release import Release, policy, until, wait_ready
from tests.e2e.traffic import address

DSCP, SENT_DSCP = 10, 46
BURST, SENT = 20, 200
LIMIT = {"rate": {"packets": 1}, "burst": {"packets": BURST}, "exceedAction": "Mark", "dscp": DSCP}
_PORT = 9999
_RECEIVE = """
import collections, json, os, socket, sys
receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # for all packets, however slow the reader
receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
receiver.bind(("::", int(sys.argv[1])))
found = collections.Counter()
while True:
    with open("/tmp/partial", "w") as record:
        json.dump(found, record)
    os.replace("/tmp/partial", "/tmp/found")
    _, ((_, _, field),), _, _ = receiver.recvmsg(2048, 64)
    found[int.from_bytes(field, sys.byteorder) >> 2] += 1
"""
_SEND = """
import socket, sys, time
target, (port, dscp, count) = sys.argv[1], map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
if ":" in target:
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
for _ in range(count):
    sender.sendto(bytes(400), (target, port))
    time.sleep(0.001)
"""


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """A client, and on another node a pod that counts what it receives by code point."""
    with release.admin.fresh_namespace("mark") as here:
        here.apply(
            pod("client", nodes[0]),
            pod("web", nodes[-1], command=["python3", "-c", _RECEIVE, str(_PORT)]),
        )
        here.wait("condition=Ready", "pod", "--all", timeout_s=120)
        yield here


def received(here: Kubectl) -> dict[int, int]:
    """Packets by code point, until now."""
    return {int(dscp): count for dscp, count in json.loads(here.exec("web", "cat", "/tmp/found")).items()}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("selected", "direction"), [("web", "ingress"), ("client", "egress")])
def test_what_exceeds_arrives_with_the_code_point_and_the_rest_as_it_was_sent(
    shop: Kubectl, selected: str, direction: str, version: int
) -> None:
    """None is lost, and about a burst of them is not marked."""
    until(lambda: "found" in shop.exec("web", "ls", "/tmp").split())
    shop.apply(policy("mark", selected, **{direction: LIMIT}))
    wait_ready(shop, "mark", 1)
    words = (address(shop, "web", version), str(_PORT), str(SENT_DSCP), str(SENT))
    shop.exec("client", "python3", "-c", _SEND, *words)
    until(lambda: sum(received(shop).values()) == SENT, lambda: str(received(shop)))
    found = received(shop)
    assert found.keys() == {DSCP, SENT_DSCP}
    assert BURST // 2 <= found[SENT_DSCP] <= 2 * BURST, found
