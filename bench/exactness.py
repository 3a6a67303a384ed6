"""How exact a limit is: UDP from a client through the node to a pod, over sizes, limits and offered loads.

A cell is one size, limit and offered load. Its steady rate is that of three seconds once the bucket is empty.
From the first packet on, what the pod has received is compared with rate x time + burst + one packet.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lab
from figures import verdict

from tests.netns.agent import wait
from tests.netns.lab import batch, entered
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.limits.stats import Stats

SIZES_BYTES = (64, 512, 1400)
"""Of Ethernet frames without FCS, as veth and the program count them."""
RATES_BITS_PER_S = (10**6, 10**7, 10**8, 10**9)
LOADS = (0.5, 1.1, 10.0)
DEFAULT_CELLS = ((64, 1.1), (1400, 0.5), (1400, 1.1), (512, 10.0))
FLOOD_PACKETS_PER_S = 1e8
BURST_S = 0.1
"""Depth of the bucket, as time at the rate: pauses of the sender shorter than this lose no tokens."""
SETTLE_S = 1.3
"""Until the bucket is empty at 1.1 times the rate."""
WINDOWS, WINDOW_S, SAMPLE_S = 3, 1.0, 0.02
HEADERS_BYTES = 14 + 20 + 8
REACHED = 0.98
ERROR_PERCENT = 0.5
POD_ADDRESS, CLIENT_ADDRESS = "10.202.1.2", "10.202.0.2"


@dataclass(frozen=True)
class Cell:
    """One measurement. A load of infinity is as fast as possible."""

    size_bytes: int
    rate_bits_per_s: int
    load: float

    @property
    def packets_per_s(self) -> float:
        """What is offered."""
        return min(self.load * self.rate_bits_per_s / (8 * self.size_bytes), FLOOD_PACKETS_PER_S)

    @property
    def burst_bytes(self) -> int:
        """Depth of the bucket."""
        return int(self.rate_bits_per_s * BURST_S / 8)

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes, {self.rate_bits_per_s / 1e6:g} Mbit/s, {self.load:g} x sent"


@dataclass(frozen=True)
class Sample:
    """The pod's counter, read between two times of the monotonic clock in seconds."""

    before_s: float
    after_s: float
    received_bytes: int


@dataclass(frozen=True)
class Result:
    """What came of a cell."""

    cell: Cell
    offered_packets_per_s: float
    error_percent: float
    """Of the steady rate, over all windows."""
    window_errors_percent: tuple[float, ...]
    lost_packets: int
    dropped_packets: int
    """By the bucket; other losses are the machine's."""
    excess_bytes: float

    @property
    def skipped(self) -> str:
        """Why the cell says nothing, if so."""
        if math.isinf(self.cell.load) or self.offered_packets_per_s >= REACHED * self.cell.packets_per_s:
            return ""
        return f"offered {self.offered_packets_per_s:,.0f} of {self.cell.packets_per_s:,.0f} packets/s"

    @property
    def met(self) -> bool:
        """Whether the targets are met."""
        steady = self.dropped_packets == 0 and self.lost_packets == 0
        if self.cell.load >= 1:
            steady = abs(self.error_percent) <= ERROR_PERCENT
        return steady and self.excess_bytes <= 0

    def row(self) -> str:
        """Return one line of the table."""
        cell = self.cell
        load = "flood" if math.isinf(cell.load) else f"{cell.load:g} x"
        head = f"  {cell.size_bytes:5} {cell.rate_bits_per_s / 1e6:8g} {load:>6}"
        if self.skipped:
            return f"{head}  skipped: {self.skipped}"
        low, high = min(self.window_errors_percent), max(self.window_errors_percent)
        error = f"{self.error_percent:+8.3f} {low:+8.3f} {high:+8.3f}"
        if cell.load < 1:
            error = f"{'':26}"
        counts = f"{self.lost_packets:10} {self.dropped_packets:10} {self.excess_bytes:12.0f}"
        return f"{head} {self.offered_packets_per_s:11,.0f} {error} {counts}  {verdict(met=self.met)}"


class Route:
    """Client, node and pod, with the pod limited by an agent on the node."""

    def __init__(self, node: lab.Node) -> None:
        self.node = node
        self.client = node.lab.pod("client", wire=False).netns
        pod = node.lab.pod("pod", [f"{POD_ADDRESS}/24"], wire=False)
        self.pod = pod.netns
        no_ipv6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")  # so that only the sender sends
        no_ipv6.write_text("1")
        for netns in (self.client, self.pod):
            with entered(netns):
                no_ipv6.write_text("1")
        self._connect()
        self.sender = node.folder / "sender"
        source = Path(__file__).with_name("sender.c")
        subprocess.run(["gcc", "-O2", "-Wall", "-o", self.sender, source], check=True)
        node.declare("pod.yaml", lab.pod_documents(pod))
        node.declare("policy.yaml", lab.policy_document(RATES_BITS_PER_S[0]))
        node.start_agent()
        node.wait_for("reconciled", complete=True)
        with entered(self.pod):
            self._counter = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
            self._sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # never read: no ICMP in answer
        self._sink.bind((POD_ADDRESS, 9))
        self._slots = Slots(node.pins)
        (self._slot,) = self._slots.read()

    def _connect(self) -> None:
        """Two veths, with neighbors that need no discovery."""
        client, pod = self.client, self.pod
        batch("ip", f"link add up0 address 02:00:00:00:00:01 type veth peer name eth0 netns {client}")
        batch("ip", f"link add pod0 address 02:00:00:00:00:02 type veth peer name eth0 netns {pod}")
        for netns, mac in ((client, "02:00:00:00:00:03"), (pod, "02:00:00:00:00:04")):
            batch("ip", (f"link set eth0 address {mac}", "link set eth0 up"), netns)
        batch("ip", ("addr add 10.202.0.1/24 dev up0", "link set up0 up", "link set pod0 up"))
        batch("ip", "addr add 10.202.1.1/24 dev pod0")
        batch("ip", f"neigh add {POD_ADDRESS} lladdr 02:00:00:00:00:04 dev pod0 nud permanent")
        batch("ip", f"addr add {CLIENT_ADDRESS}/24 dev eth0", client)
        batch("ip", "neigh add 10.202.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent", client)
        batch("ip", "route add default via 10.202.0.1", client)
        batch("ip", (f"addr add {POD_ADDRESS}/24 dev eth0", "route add default via 10.202.1.1"), pod)

    def declare(self, cell: Cell) -> None:
        """Declares the limit of the cell, and waits until its bucket is full."""
        self.node.declare("policy.yaml", lab.policy_document(cell.rate_bits_per_s, cell.burst_bytes))

        def active() -> bool:
            config = self._slots.read()[self._slot].config
            return (config.bits_per_s, config.burst_bytes) == (cell.rate_bits_per_s, cell.burst_bytes)

        wait(active, lambda: f"{cell} in the kernel")
        time.sleep(3 * BURST_S)

    def active(self, bits_per_s: int, *, delays: bool) -> bool:
        """Return whether the pod is limited to that rate, and packets wait."""
        slots = self._slots.read().values()
        configs = [slot.config for slot in slots if not slot.owner.key.is_guard]
        there = [(config.bits_per_s, config.max_delay_q > 0) for config in configs]
        return there == [(bits_per_s, delays)]

    def stats(self) -> Stats:
        """Return counters of the pod's slot."""
        return self._slots.stats(self._slot)

    def sample(self) -> Sample:
        """Return what the pod has received so far, as its interface counts."""
        before = time.monotonic()
        text = os.pread(self._counter, 1 << 14, 0).decode()
        after = time.monotonic()
        counters = next(line for line in text.splitlines() if line.strip().startswith("eth0:"))
        return Sample(before, after, int(counters.split(":")[1].split()[0]))

    def samples_of(
        self, cell: Cell, windows: int = WINDOWS, settle_s: float = SETTLE_S
    ) -> tuple[list[Sample], str]:
        """Return samples while the sender runs, with one just before it, and its output."""
        seconds = settle_s + windows * WINDOW_S + 5 * SAMPLE_S
        words = (POD_ADDRESS, cell.size_bytes - HEADERS_BYTES, cell.packets_per_s, seconds)
        samples = [self.sample()]
        with entered(self.client):
            sender = subprocess.Popen([self.sender, *map(str, words)], stdout=subprocess.PIPE, text=True)
        try:
            while sender.poll() is None:
                samples.append(self.sample())
                time.sleep(SAMPLE_S)
            output, _ = sender.communicate()
        finally:
            sender.kill()
            sender.wait()
        time.sleep(SAMPLE_S)
        samples.append(self.sample())
        return samples, output

    def measure(self, cell: Cell) -> Result:
        """Measure one cell, in 4.4 s."""
        self.declare(cell)
        before = self.stats()
        samples, output = self.samples_of(cell)
        after = self.stats()
        errors = tuple(errors_percent(samples, cell))
        sent, nanoseconds = (int(word) for word in output.split())
        received_bytes = samples[-1].received_bytes - samples[0].received_bytes
        return Result(
            cell,
            offered_packets_per_s=sent * 1e9 / nanoseconds,
            error_percent=statistics.mean(errors),
            window_errors_percent=errors,
            lost_packets=sent - received_bytes // cell.size_bytes,
            dropped_packets=after.exceed_packets - before.exceed_packets,
            excess_bytes=excess_bytes(samples, cell.rate_bits_per_s, cell.burst_bytes + cell.size_bytes),
        )

    def close(self) -> None:
        """Close what is open."""
        self._slots.close()
        self._sink.close()
        os.close(self._counter)


def errors_percent(
    samples: list[Sample], cell: Cell, windows: int = WINDOWS, settle_s: float = SETTLE_S
) -> Iterator[float]:
    """Yield the deviation of each window from the declared rate."""
    # The sender may take long to start: in a machine whose clock goes on while it waits for files, seconds.
    received = samples[0].received_bytes
    begin_s = next(each.before_s for each in samples if each.received_bytes > received)
    edges = [begin_s + settle_s + WINDOW_S * number for number in range(windows + 1)]
    chosen = [next(each for each in samples if each.before_s >= edge) for edge in edges]
    for first, last in itertools.pairwise(chosen):
        seconds = (last.before_s + last.after_s - first.before_s - first.after_s) / 2
        rate = 8 * (last.received_bytes - first.received_bytes) / seconds
        yield 100 * (rate / cell.rate_bits_per_s - 1)


def excess_bytes(samples: Sequence[Sample], bits_per_s: int, allowance_bytes: int) -> float:
    """Return the most traffic beyond rate x time and the permitted burst. Time is rounded up."""
    start = samples[0]
    return max(
        each.received_bytes
        - start.received_bytes
        - bits_per_s / 8 * (each.after_s - start.before_s)
        - allowance_bytes
        for each in samples[1:]
    )


def cells(*, full: bool) -> list[Cell]:
    """Return the product or a part of it, and the flood."""
    chosen = itertools.product(SIZES_BYTES, LOADS) if full else DEFAULT_CELLS
    product = [Cell(size, rate, load) for (size, load), rate in itertools.product(chosen, RATES_BITS_PER_S)]
    return [*product, Cell(64, 10**6, math.inf)]


def report(*, full: bool = False) -> bool:
    """Print the table. Returns whether every target is met."""
    seconds = WINDOWS * WINDOW_S
    print(
        f"\nExactness: bursts of {1000 * BURST_S:.0f} ms; {seconds:g} s a cell (n = 1) in {WINDOWS} parts\n"
        f"  targets: above the rate |error| <= {ERROR_PERCENT} %; at half of it nothing lost;\n"
        "  excess over rate x time + burst + one packet never positive\n"
        "  bytes   Mbit/s   load   packets/s  error %    least     most       lost    dropped  excess bytes"
    )
    all_met = True
    with lab.node() as node:
        path = Route(node)
        try:
            for cell in cells(full=full):
                result = path.measure(cell)
                print(result.row(), flush=True)
                all_met = all_met and (bool(result.skipped) or result.met)
        finally:
            path.close()
    return all_met


if __name__ == "__main__":
    report()
