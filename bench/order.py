"""The packets of TCP that arrive at a pod after a later packet of their flow, by a capture at the pod.

A socket numbers its packets in the identification of IPv4, each segment of a GSO packet separately.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.netns.lab import entered

_IPV4, _TCP, _ETHERNET_BYTES, _HEADERS_BYTES = 0x0800, 6, 14, 128
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6
_BUFFER_BYTES = 64 << 20
_POLL_S = 0.2
_SMALL_BYTES = 256
"""TB_SMALL_BYTES in bpf/bucket.h: such packets do not wait."""


@dataclass(frozen=True)
class Packet:
    """A packet as it arrived, maybe with several segments."""

    flow: tuple[bytes, bytes]
    number: int
    size_bytes: int

    def precedes(self, other: Packet) -> bool:
        """Return whether the sender sent it before the other one. Numbers have 16 bits."""
        return (self.number - other.number) % (1 << 16) >= 1 << 15


@contextlib.contextmanager
def overtaken(netns: str, numbers: dict[str, float]) -> Iterator[None]:
    """Add how many packets were late, and behind how large packets."""
    packets: list[Packet] = []
    ended = threading.Event()
    with entered(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV4))
    with sock:
        sock.bind(("eth0", _IPV4))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.settimeout(_POLL_S)
        capture = threading.Thread(target=_capture, args=(sock, packets, ended))
        capture.start()
        try:
            yield
        finally:
            ended.set()
            capture.join()
        _, lost = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    if lost:
        raise RuntimeError(f"the capture lost {lost} packets; repeat the measurement")
    behind = list(_sizes_before_late(packets))
    numbers["late packets"] = len(behind)
    numbers["late behind a large packet"] = sum(size > _SMALL_BYTES for size in behind)


def _capture(sock: socket.socket, packets: list[Packet], ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(TimeoutError):
            frame, address = sock.recvfrom(_HEADERS_BYTES)
            if address[2] != socket.PACKET_OUTGOING and frame[_ETHERNET_BYTES + 9] == _TCP:
                packets.append(_parse(frame[_ETHERNET_BYTES:]))


def _parse(header: bytes) -> Packet:
    length = (header[0] & 15) * 4
    size, number = struct.unpack_from("!HH", header, 2)
    return Packet((header[12:20], header[length : length + 4]), number, _ETHERNET_BYTES + size)


def _sizes_before_late(packets: list[Packet]) -> Iterator[int]:
    """Yield, for each late packet, the size of the packet that overtook it."""
    newest: dict[tuple[bytes, bytes], Packet] = {}
    for packet in packets:
        before = newest.get(packet.flow)
        if before and packet.precedes(before):
            yield before.size_bytes
        else:
            newest[packet.flow] = packet
