"""A bucket for each peer, between real pods: a client that floods takes nothing from the others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.release import Release, policy, until, wait_ready
from tests.e2e.traffic import address

BURST, FLOOD, FEW = 20, 400, 10
LIMIT = {
    "rate": {"bits": "100M"},
    "perPeer": {"rate": {"packets": 1}, "burst": {"packets": BURST}},
    "exceedAction": "Drop",
}
_PORT = 9999
_RECEIVE = """
import collections, json, os, socket, sys
receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
receiver.bind(("::", int(sys.argv[1])))
found = collections.Counter()
while True:
    with open("/tmp/partial", "w") as record:
        json.dump(found, record)
    os.replace("/tmp/partial", "/tmp/found")
    _, sender = receiver.recvfrom(2048)
    found[sender[0].removeprefix("::ffff:")] += 1
"""
_SEND = """
import socket, sys, time
target, (port, count) = sys.argv[1], map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    sender.sendto(bytes(400), (target, port))
    time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """Create clients on two nodes, and a limited pod that counts its packets by sender."""
    with release.admin.fresh_namespace("peers") as here:
        here.apply(
            pod("noisy", nodes[0]),
            pod("quiet", nodes[1]),
            pod("web", nodes[-1], command=["python3", "-c", _RECEIVE, str(_PORT)]),
        )
        here.wait("condition=Ready", "pod", "--all", timeout_s=120)
        until(lambda: "found" in here.exec("web", "ls", "/tmp").split())
        here.apply(policy("peers", "web", ingress=LIMIT))
        wait_ready(here, "peers", 1)
        yield here


def received(here: Kubectl, client: str, version: int) -> int:
    """Return the number of packets of a client that arrived."""
    found: dict[str, int] = json.loads(here.exec("web", "cat", "/tmp/found"))
    return found.get(address(here, client, version), 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_that_floods_takes_nothing_from_the_others(shop: Kubectl, version: int) -> None:
    """Give each client its own burst, and show the limit of each in the status."""
    assert "per peer 1pkt/s, burst 20 packets" in shop.get("tbp", "peers")["status"]["effective"]["ingress"]
    for client, count in (("noisy", FLOOD), ("quiet", FEW)):
        words = (address(shop, "web", version), str(_PORT), str(count))
        shop.exec(client, "python3", "-c", _SEND, *words)
    until(lambda: received(shop, "quiet", version) == FEW, lambda: str(received(shop, "quiet", version)))
    assert BURST // 2 <= received(shop, "noisy", version) <= 2 * BURST
