"""Traffic that goes past the hook: what a pod receives moves while its slot counts none of it.

A CNI plugin may hand packets to the pod's own interface directly (``bpf_redirect_peer``), or end the hook's
programs with a verdict of its own before ours runs. Then the limit is attached and in force on nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenbucket.core.limits.slot import SlotKey

_ENOUGH_PACKETS = 100
"""So many between two looks cannot be what was on its way when the counters were read."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Packets since some beginning: what the pod received, and what the slot saw of it."""

    received: int
    seen: int


@dataclass(slots=True)
class BypassWatch:
    """Compares each look with the one before."""

    bypassed: frozenset[SlotKey] = frozenset()
    _before: Mapping[SlotKey, Counted] = field(default_factory=dict)

    def look(self, now: Mapping[SlotKey, Counted]) -> None:
        """Takes the counters of all limits of what pods receive. A limit that saw nothing move stays as it
        was judged.
        """
        bypassed = set()
        for key, counted in now.items():
            before = self._before.get(key)
            received = counted.received - before.received if before else 0
            seen = counted.seen - before.seen if before else 0
            if received >= _ENOUGH_PACKETS:
                if seen == 0:
                    bypassed.add(key)
            elif key in self.bypassed and seen == 0:
                bypassed.add(key)
        self._before = dict(now)
        self.bypassed = frozenset(bypassed)
