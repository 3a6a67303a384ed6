"""What a scrape of the agent's metrics takes with 500 limits that delay: its time, its size, its memory."""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from pathlib import Path

import lab
from figures import Figure, print_table
from run import machine

from tokenbucket.agent.metrics import Exposition
from tokenbucket.agent.options import MetricsOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Rate
from tokenbucket.core.limits.bucket import bucket_of
from tokenbucket.core.limits.slot import Owner, Slot, SlotKey, config_of

LIMITS = 500
SCRAPES = 50
HOST = "127.0.0.1"


def fill(pins: Pins) -> None:
    """Fill slots for a number of pods."""
    bucket = bucket_of(Limit(Rate(bits_per_s=10**8)), Mode.ENFORCE, action=ExceedAction.DELAY)
    config = config_of(bucket, Direction.INGRESS, node_reserve=True)
    with Slots(pins) as slots:
        for number in range(LIMITS):
            pod = PodId("some-namespace", f"some-deployment-5d8f7c6b9-{number:05}", f"{number:036}")
            slots.write(number + 1, Slot(Owner(SlotKey(pod, Direction.INGRESS), "web"), config), fresh=True)


def resident_mib() -> float:
    """Of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def scrapes(port: int) -> list[tuple[float, int]]:
    """Milliseconds and bytes of each."""
    found = []
    for _ in range(SCRAPES):
        start = time.perf_counter()
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics") as response:
            size = len(response.read())
        found.append((1000 * (time.perf_counter() - start), size))
    return found


def main() -> int:
    """Print the table. Returns the exit status."""
    print(machine(), flush=True)
    with lab.node() as node:
        ensure_loaded(node.pins)
        fill(node.pins)
        exposition = Exposition(node.pins, ReconcileStats(), lambda: True)
        reads = []
        for _ in range(SCRAPES):
            start = time.perf_counter()
            exposition.read()
            reads.append(1000 * (time.perf_counter() - start))
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        before = resident_mib()
        with exposition.serve(MetricsOptions(HOST, port)):
            time.sleep(1)
            done = scrapes(port)
        print_table(
            f"One scrape of {LIMITS} limits",
            (
                Figure("reading the kernel's maps", reads, "ms"),
                Figure("the whole scrape, over HTTP", [taken for taken, _ in done], "ms"),
                Figure("its size", [size / 1024 for _, size in done], "KiB"),
                Figure("memory taken by serving", [resident_mib() - before], "MiB"),
            ),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
