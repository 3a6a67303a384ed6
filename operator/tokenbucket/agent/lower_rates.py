"""Hold back lower rates of guards, until the packets have left that were delayed at the higher rate."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenbucket.core.limits.guard import longest_wait_ns, lowers_a_rate
from tokenbucket.core.limits.slot import Slot
from tokenbucket.core.planning.plan import WriteSlot

_NS_PER_S = 10**9


@dataclass(slots=True)
class LowerRates:
    """Remembers when each guard was to get a lower rate. A restarted agent waits once more."""

    _due_s: dict[int, float] = field(default_factory=dict)
    """By slot, the time from which no packet of the higher rate is left."""

    def holds_back(self, action: WriteSlot, before: Slot | None, now_s: float) -> bool:
        """Return whether the write must wait. ``before`` is the content of the slot."""
        if not before or before.owner.key != action.slot.owner.key or not action.slot.owner.key.is_guard:
            return False
        if not lowers_a_rate(before.config, action.slot.config):
            self._due_s.pop(action.index, None)
            return False
        wait_s = longest_wait_ns(before.config) / _NS_PER_S
        if now_s < self._due_s.setdefault(action.index, now_s + wait_s):
            return True
        del self._due_s[action.index]
        return False
