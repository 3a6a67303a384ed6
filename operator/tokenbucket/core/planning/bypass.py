"""Detect attached limits that do not run, by comparison of counters.

A program that runs first can end the processing of a packet. A redirect (``bpf_redirect_peer``) can deliver
a packet to the pod without running the hook. The interface of the pod counts such packets, the slot does not.

The slot counts every segment of a GSO packet with its headers, and the interface counts the packet once. If a
limit runs, its slot therefore counts at least as many packets and bytes as the interface. Segments of a few
GSO packets can outnumber many packets that bypass the limit, so the bytes must agree as well.

Packets that wait between the hook and the interface, in a queue, count at one of them only. After they have
left, the next comparison shows no bypass. A limit is therefore bypassed if two comparisons in succession show
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenbucket.core.limits.slot import SlotKey

_ENOUGH_PACKETS = 100
"""Missing packets that indicate a bypass. Fewer can be in transit while the agent reads the counters."""
_ENOUGH_BYTES = _ENOUGH_PACKETS * 1514
_ENOUGH_TO_CLEAR = 20
"""Packets that a slot must have counted to prove that it runs."""
_LOOKS_TO_CLEAR = 2


class Amount(NamedTuple):
    """Packets and bytes."""

    packets: int
    bytes: int = 0

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(self.packets + other.packets, self.bytes + other.bytes)

    def minus(self, other: Amount) -> Amount:
        """Return the difference."""
        return Amount(self.packets - other.packets, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class Counted:
    """Traffic of one limit: what the pod's interfaces counted, and what the slot counted."""

    crossed: Amount
    seen: Amount
    """After the interfaces were read."""
    seen_before: Amount | None = None
    """Before the interfaces were read, if that is different.

    As the start of a comparison, it prevents that packets between the readings count as bypassed.
    """

    def __sub__(self, base: Counted) -> Counted:
        """Return the traffic since an earlier reading, and no less seen traffic than there was."""
        before = base.seen if base.seen_before is None else base.seen_before
        return Counted(self.crossed.minus(base.crossed), self.seen.minus(before))

    def starts_again(self, base: Counted) -> bool:
        """Return whether a counter is lower than at an earlier reading."""
        return self.crossed.packets < base.crossed.packets or self.seen.packets < base.seen.packets


@dataclass(slots=True)
class BypassWatch:
    """Compares counters between two readings. A reading with too few packets extends to the next reading."""

    bypassed: frozenset[SlotKey] = frozenset()
    """Limits that most packets bypass."""
    running: frozenset[SlotKey] = frozenset()
    """Limits whose filter saw most packets, in the last comparison."""
    suspected: frozenset[SlotKey] = frozenset()
    """Limits that the last comparison showed as bypassed, and that the next one confirms or not."""
    _base: dict[SlotKey, Counted] = field(default_factory=dict)
    _good: Counter[SlotKey] = field(default_factory=Counter)

    def compare(self, now: Mapping[SlotKey, Counted]) -> None:
        """Compare the counters of all limits with the last reading. Forget limits that are not in ``now``."""
        self._base = {key: base for key, base in self._base.items() if key in now}
        bypassed, running = set(self.bypassed & now.keys()), set(self.running & now.keys())
        suspected = set(self.suspected & now.keys())
        for key, counted in now.items():
            runs = self._runs(key, counted)
            if runs is None:
                continue
            self._base[key] = counted
            running.discard(key)
            if runs:
                running.add(key)
                suspected.discard(key)
                self._good[key] += 1
                if self._good[key] >= _LOOKS_TO_CLEAR:
                    bypassed.discard(key)
                continue
            self._good[key] = 0
            (bypassed if key in suspected else suspected).add(key)
        self.bypassed, self.running = frozenset(bypassed), frozenset(running)
        self.suspected = frozenset(suspected)

    def forget(self, key: SlotKey) -> None:
        """Start again for a limit, because the programs at its hook have changed."""
        self._base.pop(key, None)
        self.running -= {key}
        self.suspected -= {key}

    def reset(self, key: SlotKey) -> None:
        """Start again for a limit without a verdict: it is at another hook now."""
        self.forget(key)
        self.bypassed -= {key}

    def _runs(self, key: SlotKey, counted: Counted) -> bool | None:
        """Return whether the limit runs; ``None`` if there are too few packets to know."""
        base = self._base.get(key)
        if base is None or counted.starts_again(base):
            self._base[key] = counted
            return None
        since = counted - base
        return _shows_running(since.crossed, since.seen)


def _shows_running(crossed: Amount, seen: Amount) -> bool | None:
    """Return whether the slot counted at least half of the traffic; ``None`` if there is too little."""
    missing = crossed.minus(seen)
    too_few = [2 * seen.packets < crossed.packets, 2 * seen.bytes < crossed.bytes]
    enough = [missing.packets >= _ENOUGH_PACKETS, missing.bytes >= _ENOUGH_BYTES]
    if any(few and many for few, many in zip(too_few, enough, strict=True)):
        return False
    return True if not any(too_few) and seen.packets >= _ENOUGH_TO_CLEAR else None
