"""Count durations by their length. The module needs no library of metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Numbers of values up to each bound, and above all bounds. One thread writes, any thread reads."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Create an empty histogram. ``bounds`` are in ascending order."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """Return each bound as text, and how many values do not exceed it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(tuple(self._counts)), strict=True))
