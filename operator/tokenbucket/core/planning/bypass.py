"""Detection of limits that are attached and do not run: a pure comparison of counters.

A program that runs first can end a packet's way, and a redirect can hand a packet to the pod past the hook
(``bpf_redirect_peer``). The pod's interface counts such packets and the limit's slot does not.

The slot counts the segments of a GSO packet, and the interface counts it once. So a slot that runs counts at
least as many as the interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenbucket.core.limits.slot import SlotKey

_ENOUGH_PACKETS = 100
"""Fewer may have been between the interface and the hook when the counters were read."""
_ENOUGH_TO_CLEAR = 20
"""Packets that a slot must have counted to prove that it runs."""
_LOOKS_TO_CLEAR = 2


@dataclass(frozen=True, slots=True)
class Counted:
    """Packets of one limit: those that the pod's interfaces counted, and those that the slot counted."""

    crossed: int
    seen: int


@dataclass(slots=True)
class BypassWatch:
    """Compares counters between looks. A look without enough packets is continued by the next."""

    bypassed: frozenset[SlotKey] = frozenset()
    """Limits that most packets went past."""
    running: frozenset[SlotKey] = frozenset()
    """Limits that most packets passed, in their last comparison."""
    _base: dict[SlotKey, Counted] = field(default_factory=dict)
    _good: Counter[SlotKey] = field(default_factory=Counter)

    def compare(self, now: Mapping[SlotKey, Counted]) -> None:
        """Take the counters of all limits. A limit that is not in ``now`` is forgotten."""
        self._base = {key: base for key, base in self._base.items() if key in now}
        bypassed, running = set(self.bypassed & now.keys()), set(self.running & now.keys())
        for key, counted in now.items():
            verdict = self._judge(key, counted)
            if verdict is None:
                continue
            self._base[key] = counted
            running.discard(key)
            if verdict:
                running.add(key)
                self._good[key] += 1
                if self._good[key] >= _LOOKS_TO_CLEAR:
                    bypassed.discard(key)
            else:
                bypassed.add(key)
                self._good[key] = 0
        self.bypassed, self.running = frozenset(bypassed), frozenset(running)

    def forget(self, key: SlotKey) -> None:
        """Start again for a limit: other programs are at its hook now."""
        self._base.pop(key, None)
        self.running -= {key}

    def _judge(self, key: SlotKey, counted: Counted) -> bool | None:
        """Return whether the limit runs; ``None`` if there are too few packets to know."""
        base = self._base.get(key)
        if base is None or counted.crossed < base.crossed or counted.seen < base.seen:
            self._base[key] = counted
            return None
        crossed, seen = counted.crossed - base.crossed, counted.seen - base.seen
        if 2 * seen >= crossed:
            return True if seen >= _ENOUGH_TO_CLEAR else None
        return False if crossed - seen >= _ENOUGH_PACKETS else None
