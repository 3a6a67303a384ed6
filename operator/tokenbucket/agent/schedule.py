"""When to make a pass: a level-triggered loop with a minimum and a maximum interval, and shorter ones after a
pass that left something to do.

Two guarantees: passes start at least ``min_s`` apart, however often the loop is kicked; and at most
``max_s`` after the last one, however seldom. Time is passed in.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Again(enum.Enum):
    """What the last pass left to do."""

    NOTHING = enum.auto()
    WAITS = enum.auto()
    """What nothing but time makes possible."""
    FAILED = enum.auto()
    """What may work when tried again."""


@dataclass(slots=True)
class Schedule:
    """Times in seconds of one monotonic clock. The first pass is due at once."""

    min_s: float = 0.005
    max_s: float = 60.0
    retry_s: float = 1.0
    soon_s: float = 5.0
    _last: float = -math.inf
    _wanted: float = -math.inf

    def kick(self, now: float) -> None:
        """Something may have changed: a pass is wanted as soon as the minimum interval allows."""
        self._wanted = min(self._wanted, max(now, self._last + self.min_s))

    def due(self, now: float) -> bool:
        """Whether a pass is to start now."""
        return now >= self._wanted

    def wait(self, now: float) -> float:
        """Seconds until the next pass is due."""
        return max(0.0, self._wanted - now)

    def started(self, now: float, again: Again = Again.NOTHING) -> None:
        """Record a run that started at ``now``."""
        pauses_s = {Again.NOTHING: self.max_s, Again.WAITS: self.soon_s, Again.FAILED: self.retry_s}
        self._last = now
        self._wanted = now + min(self.max_s, pauses_s[again])
