"""The bound of a declared limit."""

from __future__ import annotations

from tests.observer import Bound
from tokenbucket.core.api.policy import ExceedAction, Limit, Mode
from tokenbucket.core.limits.bucket import bucket_of


def bound_of(limit: Limit) -> Bound | None:
    """Return the bound; ``None`` for Mark, which admits all packets.

    Without fq, Drop replaces Delay and has a deeper default burst, so the bound uses the deeper burst.
    """
    if limit.exceed_action is ExceedAction.MARK:
        return None
    actions = (ExceedAction.DELAY, ExceedAction.DROP)
    buckets = [bucket_of(limit, Mode.ENFORCE, action=each) for each in actions]
    return Bound(
        bytes_per_s=(limit.rate.bits_per_s or 0) / 8,
        burst_bytes=max(each.burst_bytes or 0 for each in buckets),
        packets_per_s=limit.rate.packets_per_s or 0,
        burst_packets=max(each.burst_packets or 0 for each in buckets),
    )
