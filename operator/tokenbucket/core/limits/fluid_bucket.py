"""Bound the bytes that exceed a bucket, from samples of the offered bytes.

The bounds hold for all times of the packets within a sample. Let ``b`` be the burst without the room for one
packet, ``d`` the bytes of a sample, ``T`` its duration, and ``y`` a bound of the backlog plus all rejected
bytes, minus the bound of the rejected bytes. A bucket rejects a packet only if its backlog is above ``b``, so

    rejected = max(0, y + d - b),  y = max(0, y - rate * T) + d - rejected

A bucket with Delay also admits bytes that exceed the burst. Its backlog is at most ``w``, and at most these
bytes wait:

    waiting = min(d, max(0, w + d - b)),  w = min(longest, max(0, w - rate * T) + d)

All values here are times at the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tokenbucket.core.limits.offered_report import BURSTS_S

LONGEST_S = BURSTS_S[-1]
"""Longest backlog: the burst, and with Delay 1.5 times the maximum delay."""


class FluidBucket:
    """The bounds for one rate."""

    __slots__ = ("_backlog_s", "_bounds_s", "_rejected_s", "_waiting_s", "rate")

    def __init__(self, rate: int, exceeding_bytes: int = 0, backlog_s: float = 0.0) -> None:
        """Begin after ``exceeding_bytes``, of which all may exceed."""
        self.rate = rate
        self._backlog_s = backlog_s
        self._bounds_s: list[float] | None = None
        """For each burst; ``None`` if all equal the backlog."""
        self._waiting_s = exceeding_bytes / rate
        self._rejected_s = [self._waiting_s for _ in BURSTS_S]

    def at_higher_rate(self, rate: int) -> FluidBucket:
        """Return a bucket with this state for a higher rate. The same bytes have left, so the bounds hold."""
        other = FluidBucket(rate, 0, self._backlog_s)
        other._bounds_s = list(self._bounds_s) if self._bounds_s else None
        other._waiting_s = self._waiting_s * self.rate / rate
        other._rejected_s = [rejected_s * self.rate / rate for rejected_s in self._rejected_s]
        return other

    @property
    def bounds(self) -> tuple[int, ...]:
        """Return the bytes rejected for each burst, then the bytes that wait or are dropped with Delay."""
        return tuple(math.ceil(time_s * self.rate) for time_s in (*self._rejected_s, self._waiting_s))

    def charge(self, sizes: Iterable[int], times_s: Iterable[float]) -> None:
        """Charge samples."""
        rate, backlog_s, shortest_s = self.rate, self._backlog_s, BURSTS_S[0]
        for size, time_s in zip(sizes, times_s, strict=True):
            size_s = size / rate
            if self._bounds_s or backlog_s + size_s > shortest_s:
                backlog_s = self._charge_exceeding(backlog_s, size_s, time_s)
            elif backlog_s > time_s:
                backlog_s += size_s - time_s
            else:
                backlog_s = size_s
        self._backlog_s = backlog_s

    def _charge_exceeding(self, backlog_s: float, size_s: float, time_s: float) -> float:
        """Charge a sample that exceeds a burst, or that follows one. Return the backlog after it."""
        before = self._bounds_s or [backlog_s] * len(BURSTS_S)
        self._waiting_s += max(0.0, min(size_s, backlog_s + size_s - BURSTS_S[0]))
        after = []
        for index, bound_s in enumerate(before):
            left_s = (bound_s - time_s if bound_s > time_s else 0.0) + size_s
            rejected_s = bound_s + size_s - BURSTS_S[index]
            if rejected_s > 0:
                self._rejected_s[index] += rejected_s
                left_s -= rejected_s
            after.append(left_s)
        backlog_s = min(LONGEST_S, (backlog_s - time_s if backlog_s > time_s else 0.0) + size_s)
        self._bounds_s = after if after[0] < backlog_s else None
        return backlog_s
