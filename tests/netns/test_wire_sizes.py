"""The wire size of packets without an Ethernet header, and of packets with a tag beside the frame."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.agent import free_slots, limit_of, tokenbucket
from tests.netns.lab import Lab, ip

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 1, 0x1000, 0x4000
GSO_BYTES, PAYLOAD_BYTES, HEADERS = 1000, 2005, 40
RATE = ("--rate", "1G")


@pytest.fixture(autouse=True)
def _freed() -> Iterator[None]:
    free_slots()
    yield
    free_slots()


def tcp(source: bytes, port: int) -> bytes:
    """Return an IPv4 packet of TCP without an Ethernet header, to be segmented."""
    length = HEADERS + PAYLOAD_BYTES
    network = struct.pack("!BBHIBBH", 0x45, 0, length, 0, 64, 6, 0) + source + bytes([192, 0, 2, 1])
    return network + struct.pack("!HHIIBBHHH", 1234, port, 0, 0, 0x50, 0, 0, 0, 0) + bytes(PAYLOAD_BYTES)


@pytest.mark.parametrize(
    "source", [bytes([8, 0, 0x45, 1]), bytes([198, 51, 100, 1])], ids=["8.0.69.1", "other"]
)
def test_an_address_is_not_taken_for_an_ethertype(lab: Lab, source: bytes) -> None:
    """On a tun interface, bytes 12 and 13 are the source address. 8.0 is also the ethertype of IPv4."""
    with Path("/dev/net/tun").open("r+b", buffering=0) as tun:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"layer3", flags))
        ip("link", "set", "layer3", "up")
        tokenbucket("attach", "--dev", "layer3", "--direction", "ingress", *RATE)
        before = limit_of("layer3", "ingress")
        header = struct.pack("=BBHHHH", 1, 1, HEADERS, GSO_BYTES, 20, 16)  # of virtio: TCP over IPv4
        os.write(tun.fileno(), header + tcp(source, 0x0106))
        after = limit_of("layer3", "ingress")
    assert before
    assert after
    assert after["conformPackets"] - before["conformPackets"] == 3
    counted, wire = after["conformBytes"] - before["conformBytes"], 3 * HEADERS + PAYLOAD_BYTES
    assert wire <= counted <= wire + 2 * 14


def test_a_vlan_tag_beside_the_frame_counts(lab: Lab) -> None:
    """The kernel removes the outer tag of a frame before the ingress hook."""
    pod = lab.pod("web", ["10.1.1.2/24"])
    tokenbucket("attach", "--dev", pod.veth, "--direction", "ingress", *RATE)
    before = limit_of(pod.veth, "ingress")
    frame = (b"\x02" * 12 + b"\x81\x00\x00\x07\x08\x00\x45").ljust(1000, b"\0")
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        for _ in range(100):
            sender.send(frame)
    after = limit_of(pod.veth, "ingress")
    assert before
    assert after
    packets = after["conformPackets"] - before["conformPackets"]
    others = packets - 100  # of the kernel, such as router solicitations
    assert 0 <= after["conformBytes"] - before["conformBytes"] - 100 * len(frame) <= 200 * others
