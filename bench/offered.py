"""Measure the processor time of the record of offered traffic: 110 pods, both directions (root).

PYTHONPATH=.:operator .venv/bin/python bench/offered.py
"""

from __future__ import annotations

import operator
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.isolation import private_namespaces
from tokenbucket.agent import offered
from tokenbucket.agent.offered import OfferedTraffic
from tokenbucket.bpf import loader
from tokenbucket.bpf.byte_counters import ByteCounters
from tokenbucket.bpf.pins import Pins, Sizes, mount_bpffs, source_folder
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Owner, Slot, SlotConfig, SlotKey

PODS = 110
WARM, SAMPLES = 300, 600
MBIT = 125_000 // 10
"""Bytes of 1 Mbit/s in a sample."""
random_ = random.Random(1)

LOADS: dict[str, Callable[[int], int]] = {
    "idle": lambda _: 0,
    "steady, 10 Mbit/s": lambda _: 10 * MBIT,
    "noisy, 10 Mbit/s": lambda _: random_.randrange(20 * MBIT),
    "requests, 1 Mbit/s": lambda _: int(random_.expovariate(1 / MBIT)),
    "bursts of 1 s of 100 Mbit/s every 10 s": lambda tick: 100 * MBIT if tick % 100 < 10 else MBIT // 10,
}


@dataclass
class Loaded:
    """The real counters, read as the agent does, with synthetic traffic on top. Its time does not count."""

    counters: ByteCounters
    load: Callable[[int], int]
    tick: int = 0
    bytes: list[int] = field(default_factory=lambda: [0] * 2 * PODS)
    spent_s: float = 0.0

    def read(self, slots: Sequence[int]) -> list[int]:
        found = self.counters.read(slots)
        start = time.thread_time()
        self.tick += 1
        self.bytes = [seen + self.load(self.tick + 7 * slot) for slot, seen in enumerate(self.bytes)]
        total = list(map(operator.add, found, self.bytes))
        self.spent_s += time.thread_time() - start
        return total


def measure(pins: Pins, load: Callable[[int], int]) -> float:
    """Return the share of a core."""
    traffic = OfferedTraffic(pins)
    slots = {
        1 + 2 * pod + place: Slot(
            Owner(SlotKey(PodId("shop", f"web-{pod}", str(pod)), direction)),
            SlotConfig(bits_per_s=10**6, observe=True),
        )
        for pod in range(PODS)
        for place, direction in enumerate(Direction)
    }
    offered.threading.Thread.start = lambda _: None
    traffic.follow(slots)
    with ByteCounters(pins) as counters:
        loaded = Loaded(counters, load)
        for tick in range(WARM + SAMPLES):
            if tick == WARM:
                start, loaded.spent_s = time.thread_time(), 0.0
            traffic.sample(loaded, tick / 10)
        return (time.thread_time() - start - loaded.spent_s) / (SAMPLES / 10)


def main() -> None:
    private_namespaces()
    mount_bpffs()
    pins = Pins(Path("/sys/fs/bpf") / f"bench_offered_{os.getpid()}")
    pins.maps.mkdir(parents=True)
    try:
        loader.compiled(source_folder() / "token_bucket.c", source_folder(), pins.maps, Sizes())
        for name, load in LOADS.items():
            print(f"{name:40} {100 * measure(pins, load):.2f} % of a core")
    finally:
        pins.remove()


main()
