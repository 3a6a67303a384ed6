"""Compute the guard of a limit that delays egress inside a pod.

A pod with CAP_NET_RAW sends past traffic control (``PACKET_QDISC_BYPASS``), and a pod with CAP_NET_ADMIN can
remove the program or the queue. The guard is a second bucket on the host-side interface, which such a pod
cannot change. It has the rates of the limit, drops excess packets, and has a deeper burst, so that it drops
no packet of a pod that leaves its limit in place.

Claim: each packet that Delay lets pass conforms to a guard with the burst (times at the rate of one meter)

    burst + longest + 0.5 * max_delay + largest + wait + late

``longest`` is the longest backlog with which large packets are admitted: max_delay, or more of a fair queue.

Terms of the limit, for one meter. Packet j has the cost c_j. It is admitted at t_j, and it departs at d_j.
T_j is the word before its charge, raised to t_j - burst (``tb_base``); the charge makes it T_j + c_j.
``bucket.h``, ``charge.h`` and ``delay.h`` ensure:

1. A large packet departs when it conforms to all meters (FIFO queue), or earlier (``fair.h``), but not
   before t_j. It is admitted only if T_j - t_j <= longest.
2. A small packet departs at once, d_j = t_j. Behind the last large packet, small packets move the word by the
   rate, and once by 0.5 * max_delay or by one small packet more (``tb_admit_small``).
3. No packet waits longer for *another* meter than ``wait``: a backlog of at most max_delay
   (``tb_early_drop_limit``), plus the packet's own time there, at most min(largest, burst).

``largest`` is at least the cost of any packet plus one small packet. The packet passes the guard at a_j, with
d_j <= a_j <= d_j + late: softirqs of fq and of the veth come between.

Let packets pass the guard from a_first to a_last. Among them, f was admitted first and l last. The word only
grows by charges, so all these packets together cost at most (T_l + c_l) - T_f.

- (T_l + c_l) <= t_l + longest + 0.5 * max_delay + largest, by 1 if l is large and by 2 if it is small;
  t_l <= d_l, and d_l <= a_last.
- T_f >= d_f - wait - burst: if f departed after t_f, then by 1 and 3 d_f <= T_f + burst + wait; otherwise
  T_f >= t_f - burst. And d_f >= a_first - late.

The packets cost at most

    a_last - a_first + burst + longest + 0.5 * max_delay + largest + wait + late

A bucket with this burst admits them, in whatever order they arrive, because each costs less than the burst.

The claim excludes packets larger than ``largest`` (BIG TCP, segments below 536 bytes), packets that the
sender itself schedules for later (SO_TXTIME), packets that arrive later than ``late``, and neighbor discovery
that passes the limit within its reserve. The guard has the same reserve.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import BucketConfig, SlotConfig

LARGEST_BYTES, LARGEST_SEGMENTS = 80 * 1024, 128
"""A GSO packet of 64 KiB in segments of 536 bytes (the least MSS of RFC 9293, 3.7.1), with the headers of its
123 segments, and a small packet."""
LATE_NS = 100_000_000
"""Longest time between departure and guard that loses no packet. A busy CPU runs softirqs in ksoftirqd, which
shares the CPU with other processes for many of their time slices (3 ms)."""


class _Meter(NamedTuple):
    """Times in quanta: the burst, and the cost of the largest packet."""

    burst_q: int
    largest_q: int


@functools.lru_cache(maxsize=64)
def guard_of(limit: SlotConfig) -> SlotConfig | None:
    """Return the configuration of a limit's guard; ``None`` if the limit does not delay, or has no rate of
    its own. Cached because all pods of a policy have the same limit.

    ``max_delay_q`` stays, for :func:`longest_wait_ns`. Without a queue, at an ingress hook, Delay drops.
    """
    own = _meters(limit)
    if not limit.max_delay_q or limit.observe or not any(own):
        return None
    peers = _meters(limit.per_peer) if limit.per_peer else (None, None)
    bytes_q, packets_q = (
        _burst_q(limit, meter, [each for other, each in enumerate((*own, *peers)) if other != place])
        for place, meter in enumerate(own)
    )
    return replace(limit, bytes_burst_q=bytes_q, packets_burst_q=packets_q, node_reserve=False, per_peer=None)


def _burst_q(limit: SlotConfig, meter: _Meter | None, others: list[_Meter | None]) -> int:
    if not meter:
        return 0
    late_q = LATE_NS * gcra.QUANTA_PER_NS
    waits_q = (limit.max_delay_q + min(each.largest_q, each.burst_q) for each in others if each)
    backlog_q = max(limit.max_delay_q, limit.longest_backlog_q) + limit.max_delay_q // 2
    return meter.burst_q + backlog_q + meter.largest_q + max(waits_q, default=0) + late_q


def _meters(bucket: BucketConfig) -> tuple[_Meter | None, _Meter | None]:
    of_bytes = gcra.bytes_cost_q(LARGEST_BYTES, bucket.bits_per_s)
    of_packets = gcra.packets_cost_q(LARGEST_SEGMENTS, bucket.packets_per_s)
    return (
        _Meter(bucket.bytes_burst_q, of_bytes) if bucket.bits_per_s else None,
        _Meter(bucket.packets_burst_q, of_packets) if bucket.packets_per_s else None,
    )


def lowers_a_rate(before: SlotConfig, after: SlotConfig) -> bool:
    """Return whether a guard would admit less than before: packets may wait that left at a higher rate."""
    rates = ((before.bits_per_s, after.bits_per_s), (before.packets_per_s, after.packets_per_s))
    return any(new and (not old or new < old) for old, new in rates)


def longest_wait_ns(guard: SlotConfig) -> int:
    """Return how long packets may wait for the limit of a guard."""
    return max(guard.longest_debts_q) // gcra.QUANTA_PER_NS
