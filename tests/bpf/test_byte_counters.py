"""Reading the bytes of many slots by a few system calls."""

from __future__ import annotations

import random

import pytest

from tokenbucket.bpf.byte_counters import ByteCounters
from tokenbucket.bpf.pins import MAPS, Pins
from tokenbucket.bpf.slots import Slots


@pytest.mark.parametrize("wanted", [[], [1], [63], [0, 1, 2, 3], [2, 9, 40, 63], list(range(64))])
def test_the_bytes_of_slots_equal_those_of_all_counters(slots: Slots, pins: Pins, wanted: list[int]) -> None:
    random_ = random.Random(1)
    for slot in range(slots.count):
        slots._write("tb_stats", slot, random_.randbytes(MAPS["tb_stats"].value_size * slots._cpus))
    with ByteCounters(pins) as counters:
        read = counters.read(wanted)
    expected = [slots.stats(slot) for slot in wanted]
    assert read == [stats.conform_bytes + stats.too_fast_bytes for stats in expected]
    for slot in range(slots.count):
        slots._write("tb_stats", slot, bytes(MAPS["tb_stats"].value_size * slots._cpus))
