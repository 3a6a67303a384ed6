"""Peers on a node with pods: each remote address has its own bucket, in addition to the pod's bucket."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest

from tests.netns.agent import (
    Agent,
    acquaint,
    limit_of,
    send,
    tokenbucket,
)
from tests.netns.lab import Lab, Pod, ip
from tests.netns.stream import sizes_of
from tests.netns.test_raw_sockets import PACKET_VNET_HDR, SOL_PACKET, mac
from tests.netns.tokens import Tokens

ETHERNET_BYTES = 14
SHARE = {"rate": {"packets": 1}, "burst": {"packets": 10}}
FAMILIES = {
    "IPv4": ("10.1.1.2/24", "10.4.1.2/24", "10.2.1.2/24"),
    "IPv6": ("fd01::2/64", "fd04::2/64", "fd02::2/64"),
}


def pods_of(lab: Lab, family: str = "IPv4", style: str = "ptp") -> tuple[Pod, Pod, Pod]:
    """Create two clients, and a pod to limit."""
    names = ("noisy", "quiet", "web")
    pods = [lab.pod(name, [address], style) for name, address in zip(names, FAMILIES[family], strict=True)]
    acquaint(*pods)
    return pods[0], pods[1], pods[2]


def limited(agent: Agent, web: Pod, direction: str = "ingress", **limit: Any) -> None:
    """Start an agent that limits a pod."""
    agent.limit(web, **{direction: {"exceedAction": "Drop", **limit}})


@pytest.mark.parametrize("style", ["ptp", "bridge"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_flood_of_one_peer_leaves_the_share_of_others(
    lab: Lab, agent: Agent, family: str, style: str
) -> None:
    """The flood takes no tokens that the pod's bucket has for the other peers."""
    noisy, quiet, web = pods_of(lab, family, style)
    limited(agent, web, rate={"packets": 1}, burst={"packets": 40}, perPeer=SHARE)
    tokens = Tokens(10)
    assert send(noisy, web, 300) <= tokens.most
    assert send(quiet, web, 8) == 8
    limit = limit_of("web")
    assert limit
    assert limit["peerExceedPackets"] >= 300 - tokens.most
    assert limit["perPeer"]["burstPackets"] == 10


def test_the_pods_bucket_bounds_all_peers(lab: Lab, agent: Agent) -> None:
    """The bound does not depend on the number of peers."""
    noisy, quiet, web = pods_of(lab)
    limited(agent, web, rate={"packets": 1}, burst={"packets": 14}, perPeer=SHARE)
    own, whole = Tokens(10), Tokens(14)
    first = send(noisy, web, 50)
    assert 10 <= first <= own.most
    assert 14 <= first + send(quiet, web, 50) <= whole.most


def test_the_peer_of_egress_traffic_is_the_destination(lab: Lab, agent: Agent) -> None:
    """If the pod's own address were the peer, all egress traffic would share one peer."""
    noisy, quiet, web = pods_of(lab)
    limited(agent, web, "egress", perPeer=SHARE)
    tokens = Tokens(10)
    first = send(web, noisy, 50)
    assert 10 <= first <= tokens.most
    assert 10 <= send(web, quiet, 50) <= tokens.most
    assert first + send(web, noisy, 50) <= tokens.most


def test_fragments_count_for_their_sender(lab: Lab, agent: Agent) -> None:
    """A datagram has four fragments, so two datagrams pass a bucket of ten packets."""
    noisy, quiet, web = pods_of(lab)
    limited(agent, web, perPeer=SHARE)
    tokens = Tokens(10)
    assert 2 <= send(noisy, web, 20, 5000) <= tokens.most // 4
    assert 2 <= send(quiet, web, 20, 5000) <= tokens.most // 4


def test_headers_outside_the_linear_part_identify_the_peer(lab: Lab, agent: Agent) -> None:
    """A packet socket may leave all headers except the Ethernet header in fragments of the socket buffer."""
    noisy, quiet, web = pods_of(lab)
    for pod in (noisy, web):
        ip("link", "set", pod.veth, "mtu", "9000")
        ip("link", "set", "eth0", "mtu", "9000", netns=pod.netns)
    limited(agent, web, "egress", perPeer=SHARE)
    virtio = struct.pack("=BBHHHH", 0, 0, ETHERNET_BYTES, 0, 0, 0)
    ethernet = mac(web.veth) + mac("eth0", web.netns) + b"\x08\x00"
    with web.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind(("eth0", 0))
        for peer in [noisy] * 15 + [quiet] * 5:
            header = struct.pack("!BBHHHBBH", 0x45, 0, 6000, 1, 0, 64, socket.IPPROTO_UDP, 0)
            sock.send(virtio + ethernet + header + web.ip.packed + peer.ip.packed + bytes(5980))
    limit = limit_of("web", "egress")
    assert limit
    assert (limit["conformPackets"], limit["peerExceedPackets"]) == (15, 5)
    assert limit["sharedPeerPackets"] == 0


def test_inspect_names_the_peers(lab: Lab, agent: Agent) -> None:
    """Peers with the emptiest buckets come first."""
    noisy, quiet, web = pods_of(lab)
    limited(agent, web, perPeer=SHARE)
    send(noisy, web, 50)
    send(quiet, web, 2)
    shown = tokenbucket("inspect", "web").stdout
    assert "2 peers" in shown
    assert shown.index(str(noisy.ip)) < shown.index(str(quiet.ip))


@pytest.mark.needs("sch_fq")
def test_a_peer_that_waits_for_its_bucket_delays_no_other(lab: Lab, agent: Agent) -> None:
    """The bulk of one peer takes nearly half a second to arrive. The other peer's packets arrive earlier."""
    noisy, quiet, web = pods_of(lab)
    per_peer = {"rate": {"bits": "4M"}, "burst": {"bytes": "8Ki"}}
    limited(
        agent,
        web,
        rate={"bits": "100M"},
        perPeer=per_peer,
        exceedAction="Delay",
        maxDelay="1s",
    )
    count = 4_000_000 * 45 // 100 // 8 // 1242
    with sizes_of(web, count + 5) as sizes:
        start = time.monotonic()
        with noisy.socket(socket.AF_INET) as of_noisy, quiet.socket(socket.AF_INET) as of_quiet:
            for client, packets, size in ((of_noisy, count, 1200), (of_quiet, 5, 1000)):
                for _ in range(packets):
                    client.sendto(bytes(size), (str(web.ip), 9))
    bits = count * 1242 * 8 - 8192 * 8
    assert time.monotonic() - start >= 0.99 * bits / 4_000_000
    assert sizes[-50:] == [1200] * 50
    assert sizes.count(1000) == 5
