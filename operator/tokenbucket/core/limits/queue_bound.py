"""Compute the longest delay for which the queue of a pod and direction holds at most 16 MiB.

A meter in packets counts every segment as a full-size packet of 1514 bytes. ``max_delay`` bounds the backlog
ahead of a packet, so one GSO packet comes on top.

The queue holds a packet until the bucket's departure time, or until a departure time that another program set
(TCP pacing, SO_TXTIME). The program in the kernel removes departure times of other programs that are more
than ``max_delay`` ahead, all those of small packets that exceed the limit, and all without ``TB_PACING``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_NS_PER_S = 10**9
FULL_SIZE_BYTES = 1514
HELD_BYTES = 16 * 2**20
SUPER_BYTES = 2**16
"""The largest GSO packet without BIG TCP."""
_LEAST_DELAY_NS = 1_000_000
"""Below this delay the limit is degraded to Drop, which has a deeper bucket."""


@dataclass(frozen=True, slots=True)
class Meter:
    """The rate and burst of a meter, in bytes."""

    bits_per_s: int
    burst_bytes: int

    @classmethod
    def of_packets(cls, packets_per_s: int, burst_packets: int) -> Meter:
        """Return the meter for a packet rate, with full-size packets."""
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
    # The queue of one meter holds the traffic that the meter admits in the longest delay.
    all_together = Meter(sum(each.bits_per_s for each in own), 0)
    return max(by_arrival, all_together.time_ns(HELD_BYTES - SUPER_BYTES))


def permits_pacing(own: Collection[Meter], peers: Collection[Meter], max_delay_ns: int) -> bool:
    """Return whether the queue stays bounded if departure times of other programs count.

    A conforming packet can then wait up to the longest delay, as an excess packet does. The queue holds
    traffic that arrived in that time, so a meter bounds it by arrival or not at all.
    """
    return max_delay_ns <= max((_by_arrival_ns(each, (*own, *peers)) for each in own), default=0)


def _by_arrival_ns(meter: Meter, everyones: Collection[Meter]) -> int:
    """Return the longest delay for which one meter of the pod bounds the queue by the traffic that it admits.

    A queued packet arrived at most the longest delay, plus its own time at the slowest meter, ago. In that
    time the meter admits its burst, its rate, and once more the traffic of the longest delay as debt.
    """
    longest_own_ns = max(each.time_ns(min(each.burst_bytes, SUPER_BYTES)) for each in everyones)
    return (meter.time_ns(HELD_BYTES - SUPER_BYTES - meter.burst_bytes) - longest_own_ns) // 2
