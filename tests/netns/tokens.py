"""The most packets that a bucket lets pass, on a machine of any speed."""

from __future__ import annotations

import time


class Tokens:
    """A bucket that is full now. The clock is the one that the program reads."""

    def __init__(self, burst: int, per_s: int = 1) -> None:
        self._burst = burst
        self._per_s = per_s
        self._start_s = time.monotonic()

    @property
    def regained(self) -> int:
        """The whole packets that the rate has paid for so far."""
        return int((time.monotonic() - self._start_s) * self._per_s)

    @property
    def most(self) -> int:
        """The most packets that can have passed so far."""
        return self._burst + self.regained
