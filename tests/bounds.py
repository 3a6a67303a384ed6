"""The bound of a declared limit."""

from __future__ import annotations

from tests.observer import Bound
from tokenbucket.core.api.policy import ExceedAction, Limit, Mode
from tokenbucket.core.limits.bucket import bucket_of

_GSO_BYTES, _GSO_SEGMENTS = 65_536, 45


def bound_of(limit: Limit) -> Bound | None:
    """Return the bound; ``None`` for Mark, which admits all packets.

    Without fq, Drop replaces Delay and has a deeper default burst, so the bound uses the deeper burst. In a
    fair queue, packets of several flows depart before those that were charged before them.
    """
    if limit.exceed_action is ExceedAction.MARK:
        return None
    actions = (ExceedAction.DELAY, ExceedAction.DROP)
    buckets = [bucket_of(limit, Mode.ENFORCE, action=each) for each in actions]
    early_s = max(each.longest_backlog_ns or 0 for each in buckets) / 1e9
    bytes_per_s, packets_per_s = (limit.rate.bits_per_s or 0) / 8, limit.rate.packets_per_s or 0
    return Bound(
        bytes_per_s=bytes_per_s,
        burst_bytes=max(each.burst_bytes or 0 for each in buckets)
        + _early(early_s * bytes_per_s, _GSO_BYTES),
        packets_per_s=packets_per_s,
        burst_packets=max(each.burst_packets or 0 for each in buckets)
        + _early(early_s * packets_per_s, _GSO_SEGMENTS),
    )


def _early(amount: float, packet: int) -> int:
    """Return the most that departs early, the last packet included."""
    return round(amount) + packet if amount else 0
