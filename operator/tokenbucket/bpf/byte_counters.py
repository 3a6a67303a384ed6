"""The bytes that slots have seen, read often and cheaply: by one system call for each range of slots."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Sequence
from typing import Self

from tokenbucket.bpf import syscall
from tokenbucket.bpf.codec import STATS_OFFSETS, STATS_WORDS
from tokenbucket.bpf.pins import MAPS, Pins
from tokenbucket.bpf.slots import possible_cpus

_STATS = "tb_stats"
_LARGEST_GAP = 16
"""Unused slots inside a range. More of them cost more than another system call."""
_SEEN = (STATS_OFFSETS["conform_bytes"], STATS_OFFSETS["too_fast_bytes"])


class ByteCounters:
    """The counters of the bytes of all slots. Use an instance as a context manager, from one thread."""

    def __init__(self, pins: Pins) -> None:
        """Open the pinned map. Raises KernelError with ENOENT if it is not pinned."""
        self._fd = syscall.open_pin(pins.maps / _STATS)
        self._cpus = possible_cpus()
        count = syscall.map_info(self._fd, _STATS).max_entries
        self._reader = syscall.ArrayReader(self._fd, count, MAPS[_STATS].value_size * self._cpus, _STATS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, slots: Sequence[int]) -> list[int]:
        """Return the wire bytes of all packets of these slots, which are in rising order.

        Raises KernelError.
        """
        found: list[int] = []
        for members in _ranges(tuple(slots)):
            values = self._read_range(members[0], members[-1] - members[0] + 1)
            found += [values[slot - members[0]] for slot in members]
        return found

    def _read_range(self, first: int, count: int) -> list[int]:
        words = self._reader.read(first, count).cast("Q")
        sums, stride = [0] * count, STATS_WORDS * self._cpus
        for offset in range(0, stride, STATS_WORDS):
            for counter in _SEEN:
                sums = list(map(operator.add, sums, words[offset + counter :: stride].tolist()))
        return sums


@functools.lru_cache(maxsize=1)
def _ranges(slots: tuple[int, ...]) -> list[list[int]]:
    """Return the slots in groups without large gaps."""
    groups: list[list[int]] = []
    for slot in slots:
        if groups and slot - groups[-1][-1] <= _LARGEST_GAP:
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups
