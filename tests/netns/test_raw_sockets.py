"""Pods that write frames themselves (CAP_NET_RAW), and shape the frames to evade their limit."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from tests.netns.agent import Agent, acquaint, drop, limit_of
from tests.netns.lab import Lab, Pod, ip

PAYLOAD = 60_000
HEADERS = 14 + 20 + 20
SOL_PACKET, PACKET_VNET_HDR = 263, 15
NEEDS_CSUM, GSO_TCPV4 = 1, 1


def mac(name: str, netns: str | None = None) -> bytes:
    """Return the hardware address of an interface."""
    [link] = json.loads(ip("-json", "link", "show", "dev", name, netns=netns))
    return bytes.fromhex(link["address"].replace(":", ""))


def send_in_single_bytes(client: Pod, target: Pod) -> None:
    """Send a TCP GSO packet with segments of one byte, as a virtual machine's network card may."""
    tcp = struct.pack("!HHIIBBHHH", 1, 9, 1, 0, 5 << 4, 0x10, 1000, 0, 0)
    addresses = client.ip.packed + target.ip.packed
    header = struct.pack("!BBHHHBB", 0x45, 0, 40 + PAYLOAD, 1, 0, 64, socket.IPPROTO_TCP)
    total = sum(struct.unpack("!9H", header + addresses))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    ethernet = mac(client.veth) + mac("eth0", client.netns) + b"\x08\x00"
    virtio = struct.pack("=BBHHHH", NEEDS_CSUM, GSO_TCPV4, HEADERS, 1, 34, 16)
    with client.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind(("eth0", 0))
        sock.send(virtio + ethernet + header + struct.pack("!H", checksum) + addresses + tcp + bytes(PAYLOAD))


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_gso_packet_of_single_bytes_is_charged_for_each_segment(
    lab: Lab, agent: Agent, direction: str
) -> None:
    """The charge matches the packets on the wire. Some kernels use segments of eight bytes."""
    client, target = lab.pod("client", ["10.1.1.2/24"]), lab.pod("target", ["10.2.1.2/24"])
    acquaint(client, target)
    limited = target if direction == "ingress" else client
    agent.limit(limited, **{direction: drop(bits="100k", depth="1500")})
    send_in_single_bytes(client, target)
    limit = limit_of(limited.name, direction)
    assert limit
    assert limit["conformBytes"] >= PAYLOAD + PAYLOAD // 8 * HEADERS
    assert limit["tokensBytes"] < -limit["conformBytes"] / 2  # tokens that the rate adds during the test
