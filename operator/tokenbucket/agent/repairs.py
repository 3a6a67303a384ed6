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
        """Counts a repair and says whether to make it: the first five in any minute are."""
        for each in [each for each, past in self._times.items() if past[-1] <= now - WINDOW_S]:
            del self._times[each]
        times = self._times.setdefault(place, deque())
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= ALLOWED:
            return False
        times.append(now)
        return True
