"""How long packets may wait, so that a queue never holds more than 16 MiB of one pod's packets.

A packet is taken for one of full size, 1514 bytes, where a meter counts packets: a super-packet counts as its
segments.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_NS_PER_S = 10**9
FULL_SIZE_BYTES = 1514
HELD_BYTES = 16 * 2**20
SUPER_BYTES = 2**16
"""The largest super-packet, unless BIG TCP is switched on."""
_LEAST_DELAY_NS = 1_000_000
"""Less is as good as none: what exceeds is dropped then, and should find a policer's deep bucket."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter in bytes."""

    bits_per_s: int
    burst_bytes: int

    @classmethod
    def of_packets(cls, packets_per_s: int, burst_packets: int) -> Meter:
        """One of packets, all of full size."""
        return cls(packets_per_s * FULL_SIZE_BYTES * 8, burst_packets * FULL_SIZE_BYTES)

    def time_ns(self, size_bytes: int) -> int:
        """Return the time that this number of bytes takes at the rate."""
        return size_bytes * 8 * _NS_PER_S // self.bits_per_s


def longest_delay_ns(own: Collection[Meter], peers: Collection[Meter]) -> int | None:
    """Return the longest delay that bounds the queued packets, or None if no delay does.

    ``own`` are the pod's meters, and ``peers`` those of each peer.
    """
    by_arrival = max((_by_arrival_ns(each, (*own, *peers)) for each in own), default=0)
    if peers:
        return by_arrival if by_arrival >= _LEAST_DELAY_NS else None
    # What waits for one of the pod's meters is what that gives in the longest delay.
    all_together = Meter(sum(each.bits_per_s for each in own), 0)
    return max(by_arrival, all_together.time_ns(HELD_BYTES))


def _by_arrival_ns(meter: Meter, everyones: Collection[Meter]) -> int:
    """Whatever a packet waits for, it came within the longest delay and its own time at the slowest meter. In
    that time a meter of the pod's admits its burst, its rate, and as much ahead as the longest delay allows.
    """
    longest_own_ns = max(each.time_ns(min(each.burst_bytes, SUPER_BYTES)) for each in everyones)
    return (meter.time_ns(HELD_BYTES - meter.burst_bytes) - longest_own_ns) // 2
