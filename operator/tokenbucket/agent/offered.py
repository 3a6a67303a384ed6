"""Record what pods offer to limits in Observe mode: a thread that samples counters, only while there are such
limits. A restart of the agent loses the record.
"""

from __future__ import annotations

import logging
import operator
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tokenbucket import units
from tokenbucket.bpf.byte_counters import ByteCounters
from tokenbucket.bpf.pins import Pins
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits.offered import SAMPLE_S, Offered
from tokenbucket.core.limits.offered_report import OfferedReport
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.errors import KernelError

log = logging.getLogger(__name__)


MOST_LIMITS = 512
"""Maximum number of records, which bounds the processor time and the memory."""
_TICKS = 10
"""Samples that are processed together, which takes less time."""


@dataclass(slots=True)
class _Stream:
    """The record of one limit, and its last sample."""

    slot: int
    seen_bytes: int
    at_s: float
    offered: Offered = field(default_factory=Offered)
    since: str = field(default_factory=lambda: units.rfc3339(time.time()))

    def add(self, slot: int, seen: Sequence[int], times_s: Sequence[float]) -> None:
        """Add samples. Another slot, or a lower counter, belongs to another owner's packets."""
        sizes = list(map(operator.sub, seen, (self.seen_bytes, *seen)))
        if slot == self.slot and min(sizes) >= 0:
            self.offered.add(sizes, list(map(operator.sub, times_s, (self.at_s, *times_s))))
        self.slot, self.seen_bytes, self.at_s = slot, seen[-1], times_s[-1]


class OfferedTraffic:
    """The records of the pods with limits in Observe mode. All methods are safe in all threads."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._lock = threading.Lock()
        self._followed: dict[int, SlotKey] = {}
        self._streams: dict[SlotKey, _Stream] = {}
        self._ticks: list[tuple[float, list[int]]] = []
        """Samples that are not in a record yet: their time, and the bytes by slot."""
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def follow(self, slots: Mapping[int, Slot]) -> None:
        """Record the slots in Observe mode of pods, at most ``MOST_LIMITS``, and forget all others."""
        observed = [index for index in sorted(slots) if _is_observed(slots[index])]
        followed = {index: slots[index].owner.key for index in observed[:MOST_LIMITS]}
        with self._lock:
            if followed != self._followed:
                self._flush()
                self._followed = followed
                kept = self._streams.keys() & followed.values()
                self._streams = {key: stream for key, stream in self._streams.items() if key in kept}
            if not followed:
                self._ended.set()
                return
            self._ended.clear()
            if not self._thread:
                self._thread = threading.Thread(target=self._run, name="offered", daemon=True)
                self._thread.start()

    def sample(self, counters: ByteCounters, clock_s: float | None = None) -> bool:
        """Take a sample of all followed slots. Return whether there are any. Raises KernelError."""
        with self._lock:
            seen = counters.read(list(self._followed))
            self._ticks.append((time.monotonic() if clock_s is None else clock_s, seen))
            if len(self._ticks) == _TICKS:
                self._flush()
            return bool(self._followed)

    def _flush(self) -> None:
        if not self._ticks:
            return
        times_s, samples = zip(*self._ticks, strict=True)
        self._ticks = []
        for (slot, key), seen in zip(self._followed.items(), zip(*samples, strict=True), strict=True):
            stream = self._streams.get(key)
            if stream:
                stream.add(slot, seen, times_s)
            else:
                stream = self._streams[key] = _Stream(slot, seen[0], times_s[0])
                if len(seen) > 1:
                    stream.add(slot, seen[1:], times_s[1:])

    def report(self, key: SlotKey) -> OfferedReport | None:
        """Return the record of a limit, or ``None`` without traffic."""
        with self._lock:
            stream = self._streams.get(key)
            found = stream.offered.report() if stream else None
            return replace(found, since=stream.since) if stream and found else None

    def _run(self) -> None:
        try:
            with ByteCounters(self._pins) as counters:
                due_s = time.monotonic()
                while self.sample(counters):
                    due_s = max(due_s + SAMPLE_S, time.monotonic())
                    self._ended.wait(due_s - time.monotonic())
        except KernelError as error:
            log.warning("offered traffic not recorded", extra={"error": str(error)})
        finally:
            with self._lock:
                self._thread = None


def _is_observed(slot: Slot) -> bool:
    key = slot.owner.key
    return slot.config.observe and isinstance(key.subject, PodId) and not key.is_guard
