"""How often a filter had to be put back, so that two programs that want the same place do not fight."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

WINDOW_S = 60.0
ALLOWED = 5


@dataclass(slots=True)
class Repairs:
    """Repairs of each interface in the last minute. Times in seconds of one monotonic clock."""

    _times: dict[Hashable, deque[float]] = field(default_factory=dict)

    def allow(self, place: Hashable, now: float) -> bool:
        """Count a repair, and return whether to make it: the first five in any minute are."""
        for each in [each for each, past in self._times.items() if past[-1] <= now - WINDOW_S]:
            del self._times[each]
        if self.exhausted(place, now):
            return False
        self._times.setdefault(place, deque(maxlen=ALLOWED)).append(now)
        return True

    def exhausted(self, place: Hashable, now: float) -> bool:
        """Whether the next repair would be one too many."""
        times = self._times.get(place)
        return times is not None and len(times) == ALLOWED and times[0] > now - WINDOW_S
