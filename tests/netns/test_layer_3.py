"""Addresses and code points of packets without an Ethernet header, as on tun and WireGuard interfaces."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from tests.bpf.bucket_machine import config
from tests.bpf.test_mark import checksum
from tests.bpf.test_peers import peers
from tests.netns.agent import PINS, free_slots, limit_of, tokenbucket
from tests.netns.lab import Lab, ip
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.limits.slot import Slot, SlotConfig

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_MTU_DISCOVER, _DO = 10, 2
"""The kernel then sends all IPv4 packets with the identification 0."""
ONE, OTHER = ("8.0.69.1", "198.51.100.1"), ("86dd::1", "2001:db8::1")
"""Bytes 12 and 13 of the first IPv4 packet are the ethertype of IPv4."""
Address = IPv4Address | IPv6Address


@pytest.fixture
def tun(lab: Lab) -> Iterator[int]:
    """Provide a tun interface, and free the slots of its limits."""
    del lab
    free_slots()
    with Path("/dev/net/tun").open("r+b", buffering=0) as device:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"layer3", _IFF_TUN | _IFF_NO_PI))
        ip("link", "set", "layer3", "up")
        yield device.fileno()
    free_slots()


def packet(source: Address) -> bytes:
    """Return a packet of UDP."""
    data = struct.pack("!HHHH", 9, 9, 8 + 400, 0) + bytes(400)
    if source.version == 4:
        head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(data), 0, 64, 17, 0)
        return head + source.packed + bytes([192, 0, 2, 1]) + data
    head = struct.pack("!IHBB", 6 << 28, len(data), 17, 64)
    return head + source.packed + IPv6Address("2001:db8::2").packed + data


def limit(config: SlotConfig, direction: str) -> None:
    """Attach a limit to the interface, and give it settings that the command line does not have."""
    tokenbucket("attach", "--dev", "layer3", "--direction", direction, "--rate", "1G")
    with closing(Slots(PINS)) as slots:
        ((index, slot),) = slots.read().items()
        slots.write(index, Slot(slot.owner, config), fresh=True)


@pytest.mark.parametrize("addresses", [ONE, OTHER], ids=["IPv4", "IPv6"])
def test_each_address_has_its_own_bucket(tun: int, addresses: tuple[str, str]) -> None:
    """One packet of each peer conforms. Peers share a bucket if their addresses are not found."""
    limit(config(10**9, 10**6, per_peer=peers(8_000, 400)), "ingress")
    for address in addresses * 3:
        os.write(tun, packet(ip_address(address)))
    after = limit_of("layer3", "ingress")
    assert after
    assert (after["conformPackets"], after["peerExceedPackets"]) == (2, 4)


@pytest.mark.parametrize("address", [*ONE, *OTHER])
def test_a_mark_changes_the_code_point_and_no_other_bit(tun: int, address: str) -> None:
    """The second packet exceeds the limit. Both have the same content."""
    sender, version = ip_address(address), 6 if ":" in address else 4
    limit(config(8_000, 400, dscp=46), "egress")
    ip(
        "address",
        "add",
        f"{sender}/{64 if version == 6 else 24}",
        "dev",
        "layer3",
        *["nodad"] * (version == 6),
    )
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _DO)
        for _ in range(2):
            sock.sendto(bytes(400), (str(sender + 1), 9))
    first, marked = sent(tun, sender, 2)
    code_point = 0xB8 if version == 4 else 0xB80
    assert int.from_bytes(marked[:2]) == int.from_bytes(first[:2]) | code_point
    assert without_checksum(first)[2:] == without_checksum(marked)[2:]
    assert version == 6 or checksum(marked[:20]) == 0


def sent(tun: int, sender: Address, count: int) -> list[bytes]:
    """Read packets of UDP from an address."""
    found: list[bytes] = []
    while len(found) < count:
        read = os.read(tun, 2000)
        if len(read) > 400 and sender.packed in read:
            found.append(read)
    return found


def without_checksum(packet: bytes) -> bytes:
    """Return a packet whose IPv4 checksum is zero."""
    return packet[:10] + bytes(2) + packet[12:] if packet[0] >> 4 == 4 else packet
