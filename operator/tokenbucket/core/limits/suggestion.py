"""Suggest a rate and a burst from the offered traffic of pods."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tokenbucket.core.api.parse_limit import BURST_BYTES, RATE_BITS
from tokenbucket.core.api.policy import ExceedAction
from tokenbucket.core.limits.offered_report import BURSTS_S, OfferedReport
from tokenbucket.core.limits.queue_bound import SUPER_BYTES
from tokenbucket.errors import TokenBucketError

ROOM_BYTES = 2 * SUPER_BYTES
"""Room of a suggested burst for one GSO packet with the headers of its segments."""
MAX_DELAY_NS = 100_000_000
"""Maximum delay of a suggestion with Delay."""
LEAST_ACTIVE_S = 60
_KIB = 1024


class TooLittleDataError(TokenBucketError):
    """The traffic was observed for too short a time."""


@dataclass(frozen=True, slots=True)
class Excess:
    """Upper bounds of the traffic that exceeds a suggested limit, as shares of all bytes."""

    rejected: float
    """Dropped, or with Mark, marked."""
    waiting: float
    """Delayed or dropped; 0 without Delay."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A limit for each of some pods."""

    action: ExceedAction
    bits_per_s: int
    burst_bytes: int
    burst_s: float
    excess: Excess
    """Of all pods together."""
    worst: tuple[str, Excess]
    """The pod with the largest share."""
    busiest: tuple[str, OfferedReport]
    """The pod whose 99th percentile is the rate."""
    pods: int


def suggest(
    offered: Mapping[str, OfferedReport],
    action: ExceedAction,
    *,
    most_rejected: float = 0.001,
    least_active_s: int = LEAST_ACTIVE_S,
) -> Suggestion:
    """Return a limit with the 99th percentile of the busiest pod's 1 s rates.

    The burst is the shortest with which at most ``most_rejected`` of the bytes are rejected, or the longest.
    Raises TooLittleDataError.
    """
    known = {pod: report for pod, report in offered.items() if report.active_s >= least_active_s}
    if not known:
        raise TooLittleDataError(_too_little(offered.values(), least_active_s))
    busiest = max(known.items(), key=lambda item: item[1].p99)
    choices = [_choice(known, busiest, action, burst) for burst in _bursts(action)]
    return next((each for each in choices if each.excess.rejected <= most_rejected), choices[-1])


def _bursts(action: ExceedAction) -> range:
    """Return the indexes of possible bursts.

    TCP needs a deep bucket if packets are dropped. With Delay, the bounds hold for a burst and 1.5 times the
    maximum delay that are no longer than the longest backlog.
    """
    if action is ExceedAction.DELAY:
        return range(len(BURSTS_S) - 1)
    return range(action is ExceedAction.DROP, len(BURSTS_S))


def _choice(
    offered: Mapping[str, OfferedReport], busiest: tuple[str, OfferedReport], action: ExceedAction, burst: int
) -> Suggestion:
    rate = min(busiest[1].p99, RATE_BITS[1] // 8)
    bits_per_s = max(RATE_BITS[0], min(RATE_BITS[1], _rounded_up(8 * rate)))
    largest_s = 8 * (BURST_BYTES[1] - ROOM_BYTES) / bits_per_s
    burst_s = min(BURSTS_S[burst], largest_s)
    burst = bisect_right(BURSTS_S, burst_s) - 1
    waits = action is ExceedAction.DELAY
    found = {pod: _excess([report], rate, burst, waits=waits) for pod, report in offered.items()}
    return Suggestion(
        action=action,
        bits_per_s=bits_per_s,
        burst_bytes=-(-(int(bits_per_s * burst_s / 8) + ROOM_BYTES) // _KIB) * _KIB,
        burst_s=burst_s,
        excess=_excess(offered.values(), rate, burst, waits=waits),
        worst=max(found.items(), key=lambda item: (item[1].rejected, item[1].waiting)),
        busiest=busiest,
        pods=len(offered),
    )


def _excess(reports: Collection[OfferedReport], rate: int, burst: int, *, waits: bool) -> Excess:
    """Return the excess for an index of ``BURSTS_S``. The records do not bound it below the first one."""
    if burst < 0:
        return Excess(1.0, 1.0 if waits else 0.0)
    total = sum(report.total_bytes for report in reports) or 1
    rejected = sum(report.rejected_bytes(rate, burst) for report in reports)
    waiting = sum(report.waiting_bytes(rate) for report in reports) if waits else 0
    return Excess(min(1.0, rejected / total), min(1.0, waiting / total))


def _too_little(offered: Collection[OfferedReport], least_active_s: int) -> str:
    if not offered:
        return (
            "no agent has recorded it; select the pods by a policy with mode Observe and this direction, "
            f"and try again after {least_active_s} s with traffic"
        )
    longest = max(report.active_s for report in offered)
    seconds = f"{longest} s with traffic" if longest else "no second with traffic"
    return (
        f"agents have recorded {seconds}, and a suggestion needs {least_active_s} s; "
        "keep the policy with mode Observe, and try again later"
    )


def _rounded_up(number: int) -> int:
    """Return the number with three significant digits."""
    unit = int(10 ** max(0, len(str(number)) - 3))
    return -(-number // unit) * unit
