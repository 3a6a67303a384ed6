"""Detect attached limits that do not run, by comparison of counters.

A program that runs first can end the processing of a packet. A redirect (``bpf_redirect_peer``) can deliver
a packet to the pod without running the hook. The interface of the pod counts such packets, the slot does not.

The slot counts every segment of a GSO packet, and the interface counts the packet once. If a limit runs, its
slot therefore counts at least as many packets as the interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenbucket.core.limits.slot import SlotKey

_ENOUGH_PACKETS = 100
"""Missing packets that prove a bypass. Fewer can be in transit while the agent reads the counters."""
_ENOUGH_TO_CLEAR = 20
"""Packets that a slot must have counted to prove that it runs."""
_LOOKS_TO_CLEAR = 2


@dataclass(frozen=True, slots=True)
class Counted:
    """Packets of one limit: those that the pod's interfaces counted, and those that the slot counted."""

    crossed: int
    seen: int
    """After the interfaces were read."""
    seen_before: int | None = None
    """Before the interfaces were read, if that is different.

    As the start of a comparison, it prevents that packets between the readings count as bypassed.
    """

    def __sub__(self, base: Counted) -> Counted:
        """Return the packets since an earlier reading, and no fewer seen packets than there were."""
        before = base.seen if base.seen_before is None else base.seen_before
        return Counted(self.crossed - base.crossed, self.seen - before)


@dataclass(slots=True)
class BypassWatch:
    """Compares counters between two readings. A reading with too few packets extends to the next reading."""

    bypassed: frozenset[SlotKey] = frozenset()
    """Limits that most packets bypass."""
    running: frozenset[SlotKey] = frozenset()
    """Limits whose filter saw most packets, in the last comparison."""
    _base: dict[SlotKey, Counted] = field(default_factory=dict)
    _good: Counter[SlotKey] = field(default_factory=Counter)

    def compare(self, now: Mapping[SlotKey, Counted]) -> None:
        """Compare the counters of all limits with the last reading. Forget limits that are not in ``now``."""
        self._base = {key: base for key, base in self._base.items() if key in now}
        bypassed, running = set(self.bypassed & now.keys()), set(self.running & now.keys())
        for key, counted in now.items():
            runs = self._runs(key, counted)
            if runs is None:
                continue
            self._base[key] = counted
            running.discard(key)
            if runs:
                running.add(key)
                self._good[key] += 1
                if self._good[key] >= _LOOKS_TO_CLEAR:
                    bypassed.discard(key)
            else:
                bypassed.add(key)
                self._good[key] = 0
        self.bypassed, self.running = frozenset(bypassed), frozenset(running)

    def forget(self, key: SlotKey) -> None:
        """Start again for a limit, because the programs at its hook have changed."""
        self._base.pop(key, None)
        self.running -= {key}

    def reset(self, key: SlotKey) -> None:
        """Start again for a limit without a verdict: it is at another hook now."""
        self.forget(key)
        self.bypassed -= {key}

    def _runs(self, key: SlotKey, counted: Counted) -> bool | None:
        """Return whether the limit runs; ``None`` if there are too few packets to know."""
        base = self._base.get(key)
        if base is None or counted.crossed < base.crossed or counted.seen < base.seen:
            self._base[key] = counted
            return None
        since = counted - base
        if 2 * since.seen >= since.crossed:
            return True if since.seen >= _ENOUGH_TO_CLEAR else None
        return False if since.crossed - since.seen >= _ENOUGH_PACKETS else None
