"""How many packets pass a limit that is far away, from senders on one CPU and on two, beside no limiter.

UDP of 64 bytes, as fast as each sender can, through the node to the pod; each sender has a CPU to itself and
does all of a packet's work on it, so that its rate tells the time that a packet takes. Both take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab
from exactness import FLOOD_PACKETS_PER_S, HEADERS_BYTES, POD_ADDRESS, Route
from figures import Figure, print_table
from limiters import Limiter, limiters

from tests.netns.lab import entered

SIZE_BYTES = 64
SECONDS, SETTLE_S, WINDOW_S = 1.6, 0.3, 1.0
ROUNDS = 7
OUT_OF_REACH_BITS_PER_S = 100_000_000_000
CHOSEN = ("none", "Drop")


def packets_per_s(route: Route, senders: int) -> float:
    """Return the packets that the pod receives from a number of senders, each on its own CPU."""
    words = (POD_ADDRESS, SIZE_BYTES - HEADERS_BYTES, FLOOD_PACKETS_PER_S, SECONDS)
    with entered(route.client):
        running = [
            subprocess.Popen(["taskset", "--cpu-list", str(cpu), route.sender, *map(str, words)], stdout=-3)
            for cpu in sorted(os.sched_getaffinity(0))[:senders]
        ]
    time.sleep(SETTLE_S)
    first = route.sample()
    time.sleep(WINDOW_S)
    last = route.sample()
    for each in running:
        each.wait()
    seconds = (last.before_s + last.after_s - first.before_s - first.after_s) / 2
    return (last.received_bytes - first.received_bytes) / SIZE_BYTES / seconds


@contextmanager
def _installed(route: Route, limiter: Limiter) -> Iterator[None]:
    limiter.install(route, OUT_OF_REACH_BITS_PER_S)
    try:
        yield
    finally:
        limiter.remove(route)


def report() -> None:
    """Print the tables."""
    with lab.node() as node:
        route = Route(node)
        try:
            known = [limiters(Path())[name] for name in CHOSEN]
            known[-1].remove(route)  # what the route begins with
            for senders in range(1, min(2, os.cpu_count() or 1) + 1):
                samples: dict[str, list[float]] = {limiter.name: [] for limiter in known}
                for _ in range(ROUNDS):
                    for limiter in known:
                        with _installed(route, limiter):
                            samples[limiter.name].append(packets_per_s(route, senders))
                _print(senders, samples)
        finally:
            route.close()


def _print(senders: int, samples: dict[str, list[float]]) -> None:
    none = statistics.median(samples["none"])
    figures = []
    for name, rates in samples.items():
        figures.append(Figure(f"{name}: packets", [rate / 1000 for rate in rates], "k/s"))
        figures.append(Figure("  time of a CPU each", [senders * 1e9 / rate for rate in rates], "ns"))
        figures.append(
            Figure("  of the packets without a limiter", [100 * rate / none for rate in rates], "%")
        )
    print_table(f"64-byte packets far from the limit, CPUs that send: {senders}", figures)


if __name__ == "__main__":
    report()
