"""Run the real program by BPF_PROG_TEST_RUN, with a clock that the test sets."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from unittest import mock

from tests.bpf.program_run import run_program
from tokenbucket.bpf import codec
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import Owner, Slot, SlotConfig, SlotKey

PASS, DROP = -1, 2
OWNER = Owner(SlotKey(PodId("tests", "machine"), Direction.INGRESS))
_SKB_BYTES = 192
_OFFSETS = {"mark": 8, "ingress_ifindex": 36, "wire_len": 160, "gso_segs": 164, "gso_size": 176}
_CLOCK, _TSTAMP = 48, 152
_GSO_BYTES = 1400
UDP_PACKET = bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + b"\x11" + bytes(40)
"""An Ethernet frame of 64 bytes with IPv4 and UDP."""


def context(now_ns: int, departs_ns: int = 0, **fields: int) -> bytes:
    """Return a ``struct __sk_buff`` for a test run. The packet may carry a departure time."""
    skb = bytearray(_SKB_BYTES)
    struct.pack_into("=Q", skb, _CLOCK, now_ns)
    struct.pack_into("=Q", skb, _TSTAMP, departs_ns)
    for name, value in fields.items():
        struct.pack_into("=I", skb, _OFFSETS[name], value)
    return bytes(skb)


def config(
    bits_per_s: int = 0, burst_bytes: int = 0, packets_per_s: int = 0, burst_packets: int = 0, **more: int
) -> SlotConfig:
    """Return the configuration of a slot from rates and bursts in plain units."""
    return SlotConfig(
        bits_per_s=bits_per_s,
        bytes_burst_q=gcra.bytes_time_q(burst_bytes, bits_per_s) if bits_per_s else 0,
        packets_per_s=packets_per_s,
        packets_burst_q=gcra.packets_time_q(burst_packets, packets_per_s) if packets_per_s else 0,
        **more,
    )


def fill(slots: Slots, index: int, now_ns: int) -> None:
    """Fill the buckets of a slot as of a time of the monotonic clock, and reset its peers."""
    slots._write("tb_meters", index, bytes(codec.full_meters(now_ns, monotonic_ns())))
    slots._forget_flows(index, now_ns)


@dataclass
class Machine:
    """One slot of the program, and a program that runs on it."""

    program_fd: int
    slots: Slots
    index: int = 7
    packet: bytes = field(default=UDP_PACKET)
    left: bytes = field(default=b"", init=False)
    """The last packet, after the program has run."""
    stamp_ns: int = field(default=0, init=False)
    """Its time stamp; 0 if it has none. The kernel sends it from a socket."""
    departs_ns: int = field(default=0, init=False)
    """Its departure time; 0 if it departs at once."""

    def configure(self, config: SlotConfig) -> None:
        """Configure the slot, with a full bucket."""
        self.slots.write(self.index, Slot(OWNER, config), fresh=True)

    def change(self, config: SlotConfig, now_ns: int) -> None:
        """Change the limit of the slot at that time. The tokens in the bucket stay."""
        with mock.patch("tokenbucket.bpf.slots.monotonic_ns", lambda: now_ns):
            self.slots.write(self.index, Slot(OWNER, config), fresh=False)

    def fill(self, now_ns: int) -> None:
        """Fill all buckets as of ``now_ns``. A fresh slot is full as of the real clock."""
        fill(self.slots, self.index, now_ns)

    def offer(self, now_ns: int, size_bytes: int = 0, segments: int = 0, **fields: int) -> bool:
        """Send one packet of that wire size at that time. Return whether the program admits it."""
        skb = context(
            now_ns,
            **{"mark": self.index, "ingress_ifindex": 1, "wire_len": size_bytes}
            | {"gso_segs": segments, "gso_size": _GSO_BYTES * (segments > 1)}
            | fields,
        )
        data = self.packet[: size_bytes or len(self.packet)]
        run = run_program(self.program_fd, data, skb)
        assert run.verdict in (PASS, DROP)
        self.left = run.packet
        (self.stamp_ns,) = struct.unpack_from("=Q", run.context, _TSTAMP)
        self.departs_ns = self.stamp_ns if self.stamp_ns > now_ns else 0
        return run.verdict == PASS
