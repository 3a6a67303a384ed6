"""Bound the packets that a bucket admits, on a machine of any speed."""

from __future__ import annotations

import time


class Tokens:
    """A bucket that is full now, on the clock that the program reads."""

    def __init__(self, burst: int, per_s: int = 1) -> None:
        self._burst = burst
        self._per_s = per_s
        self._start_s = time.monotonic()

    @property
    def regained(self) -> int:
        """Return the whole packets that the rate has added so far."""
        return int((time.monotonic() - self._start_s) * self._per_s)

    @property
    def most(self) -> int:
        """Return the largest number of packets that can have passed so far."""
        return self._burst + self.regained
