"""This project beside what its users have today, in one topology and one run.

A client, a node that forwards, a pod. In each round every limiter is installed in turn, and everything is
measured with it, so that what disturbs the machine disturbs all. Needs a kernel with fq, netem and police:
``make bench-peers`` runs it in a virtual machine with Debian's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lab
import peers_targets
from exactness import (
    CLIENT_ADDRESS,
    FLOOD_PACKETS_PER_S,
    HEADERS_BYTES,
    POD_ADDRESS,
    SETTLE_S,
    Cell,
    Route,
    errors_percent,
    excess_bytes,
)
from fairness import Fairness
from limiters import Limiter, drops, limiters
from run import machine

from tests.netns.lab import batch, entered

RATE_BITS_PER_S = 100_000_000
SECONDS, OMITTED_S = 4, 2
"""Of each TCP measurement; the first two are left out, in which a bucket is used up."""
LEAST_PACKETS = 1000
"""Of full size, that it takes: longer than that at low rates, and half as long is left out."""
LATENCY_S = 4.0
CONNECTIONS = 20
SMALL_BYTES, LARGE_BYTES = 64, 4096
"""Of a request, and its response: those that Delay lets pass bulk, and those that wait."""
_UNTIL_ENDED_S = 300
_NETEM_PACKETS = 200_000


@dataclass(frozen=True)
class Tcp:
    """TCP flows to the pod."""

    bits_per_s: int = RATE_BITS_PER_S
    control: str = "cubic"
    flows: int = 1
    rtt_ms: float = 0
    least_s: int = SECONDS

    @property
    def seconds(self) -> tuple[int, int]:
        """How long it is measured, and what is left out before."""
        seconds = max(self.least_s, LEAST_PACKETS * 1514 * 8 // self.bits_per_s)
        return seconds, max(OMITTED_S, seconds // 2)

    def __str__(self) -> str:
        rtt = f", RTT {self.rtt_ms:g} ms" if self.rtt_ms else ""
        flows = "1 flow" if self.flows == 1 else f"{self.flows} flows"
        return f"{self.bits_per_s / 1e6:g} Mbit/s, {self.control}, {flows}{rtt}"


FAST_BITS_PER_S = 1_000_000_000
COMPARED = (
    Tcp(),
    Tcp(control="bbr"),
    Tcp(flows=8),
    Tcp(rtt_ms=10),
    Tcp(control="bbr", rtt_ms=10),
    Tcp(FAST_BITS_PER_S),
    Tcp(FAST_BITS_PER_S, flows=8),
)
OUT_OF_REACH_BITS_PER_S = 100_000_000_000
"""A limit that nothing here comes near."""
PACKET_BYTES, FLOOD_BYTES = 64, 1400
"""Of a packet that is counted, and of one that floods."""
UDP = tuple(
    Cell(size, rate, load)
    for size, rate in ((64, 10_000_000), (512, RATE_BITS_PER_S), (1400, RATE_BITS_PER_S))
    for load in (1.2, 2.0)
)
"""Above the rate. One emulated processor cannot send 64 bytes at 100 Mbit/s, 200,000 a second."""
USED_UP_BYTES_PER_S = 80_000_000
"""A flood as fast as possible is faster, even through a limiter."""
START_S = 1.0
"""A sender has started by then."""
SWEEP = tuple(
    Tcp(rate, control, flows, rtt)
    for rate in (256_000, 1_000_000, 4_000_000, 10_000_000, 100_000_000, FAST_BITS_PER_S)
    for control in ("cubic", "bbr", "reno")
    for flows in (1, 8, 64)
    for rtt in (0, 10, 50)
)
BURSTS = tuple(
    Tcp(10_000_000, control, flows, rtt)
    for control, flows in (("cubic", 1), ("bbr", 1), ("reno", 1), ("cubic", 8))
    for rtt in (0, 5, 50)
)
"""Where the depth of a policer's bucket matters."""
LOSSES = tuple(
    Tcp(RATE_BITS_PER_S, control, flows, rtt, least_s=40)
    for control, flows in (("cubic", 1), ("reno", 1), ("cubic", 8))
    for rtt in (0, 10)
)
"""Long enough for what is lost once in several seconds."""
FLOWS = (Tcp(flows=8), Tcp(control="bbr", flows=8), Tcp(FAST_BITS_PER_S, flows=8), Tcp(10_000_000, flows=8))
"""Other places and congestion controls than those of fairness.py."""
STUDIES = {"sweep": SWEEP, "bursts": BURSTS, "losses": LOSSES, "flows": FLOWS}
UDP_ALONE = "udp"
FAIRNESS, ORDER = "fairness", "order"
BULK_FLOWS = (1, 64)


@dataclass(frozen=True)
class Sample:
    """One measured number."""

    limiter: str
    what: str
    cell: str
    value: float


@dataclass(frozen=True)
class Way:
    """Which way bulk and requests go: from one namespace to another, and its address."""

    source: str
    target: str
    address: str


class Bench:
    """Everything that is measured of one route."""

    def __init__(self, route: Route, request: Path) -> None:
        self._route = route
        self._request = request
        self.way = self._to_the_pod = Way(route.client, route.pod, POD_ADDRESS)
        self._from_the_pod = Way(route.pod, route.client, CLIENT_ADDRESS)

    def set_up(self) -> None:
        """Disable the memory of former connections."""
        for netns in (self._route.client, self._route.pod):
            with entered(netns):
                Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")

    @contextlib.contextmanager
    def of(self, limiter: Limiter) -> Iterator[None]:
        """Traffic goes the way that it limits, and asks for ECN, or only answers, as it says."""
        self.way = self._from_the_pod if limiter.sends else self._to_the_pod
        for netns in (self._route.client, self._route.pod):
            with entered(netns):
                Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1" if limiter.ecn else "2")
        yield

    @contextlib.contextmanager
    def round_trip(self, milliseconds: float) -> Iterator[None]:
        """Delay the acknowledgments by this time."""
        if not milliseconds:
            yield
            return
        delay = f"netem delay {milliseconds}ms limit {_NETEM_PACKETS}"
        batch("tc", f"qdisc add dev eth0 root {delay}", self.way.target)
        try:
            yield
        finally:
            batch("tc", "qdisc del dev eth0 root", self.way.target)

    @contextlib.contextmanager
    def serving(self, *command: str) -> Iterator[None]:
        with entered(self.way.target):
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            server.stdout.readline()
            # A server that writes to a full pipe would stop to receive.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            yield
        finally:
            server.kill()
            server.wait()

    @contextlib.contextmanager
    def _bulk(self, cell: Tcp, seconds: int, omitted: int) -> Iterator[subprocess.Popen[str]]:
        to = self.way.address
        serve = ("iperf3", "--server", "--one-off", "--forceflush", "--bind", to)
        words = ["iperf3", "--client", to, "--json", "--congestion", cell.control]
        words += ["--parallel", cell.flows, "--time", seconds, "--omit", omitted]
        with self.serving(*serve), entered(self.way.source):
            client = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
            try:
                yield client
            finally:
                client.kill()
                client.communicate()

    def tcp(self, cell: Tcp) -> dict[str, float]:
        """Goodput in percent of the rate, retransmissions, and Jain's index of fairness."""
        with self.round_trip(cell.rtt_ms), self._bulk(cell, *cell.seconds) as client:
            output, _ = client.communicate(timeout=600)
        end: dict[str, Any] = json.loads(output)["end"]
        rates = [each["receiver"]["bits_per_second"] for each in end["streams"]]
        squares = sum(rate**2 for rate in rates)
        return {
            "goodput, % of the rate": 100 * end["sum_received"]["bits_per_second"] / cell.bits_per_s,
            "retransmissions": end["sum_sent"]["retransmits"],
            "fairness (Jain)": sum(rates) ** 2 / (len(rates) * squares) if squares else 0.0,
        }

    def latency(self, flows: int) -> dict[str, float]:
        """Of requests, and of setting up connections, beside bulk flows; in ms."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.serving(str(self._request), "serve", self.way.address))
            stack.enter_context(self._bulk(Tcp(flows=flows), _UNTIL_ENDED_S, 0))
            time.sleep(OMITTED_S)
            connections = self._ask("connect", str(CONNECTIONS))
            answers = self._ask("ask", str(LATENCY_S), str(SMALL_BYTES))
            large = self._ask("ask", str(LATENCY_S), str(LARGE_BYTES))
        cuts = statistics.quantiles(answers, n=1000)
        return {
            "p50, ms": cuts[499],
            "p99, ms": cuts[989],
            "p99.9, ms": cuts[998],
            "most, ms": max(answers),
            "4 KiB p50, ms": statistics.median(large),
            "connection p50, ms": statistics.median(connections),
        }

    def _ask(self, *words: str) -> list[float]:
        verb, *amounts = words
        with entered(self.way.source):
            command = [self._request, verb, self.way.address, *amounts]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return [int(line) / 1e6 for line in done.stdout.split()]

    def first_moments(self, bits_per_s: int, burst_bytes: int | None) -> dict[str, float]:
        """Return the first traffic of a UDP flood at ten times the rate, in multiples of rate x time."""
        before = [self._route.sample()]
        with self.flood(FLOOD_BYTES, 10 * bits_per_s / (8 * FLOOD_BYTES), 1.5) as sender:
            while sender.poll() is None:
                before.append(self._route.sample())
                time.sleep(0.002)
        # Time runs from the last look that saw nothing of the flood.
        quiet = sum(each.received_bytes == before[0].received_bytes for each in before)
        seen = before[quiet - 1 :]
        found = {}
        for seconds, name in ((0.1, "first 100 ms"), (1.0, "first second")):
            end = next(at for at, each in enumerate(seen) if each.before_s >= seen[0].before_s + seconds)
            received_bytes = seen[end].received_bytes - seen[0].received_bytes
            rate_bytes = bits_per_s / 8 * (seen[end].after_s - seen[0].before_s)
            found[f"{name}, x rate"] = received_bytes / rate_bytes
            if burst_bytes is not None:
                excess = excess_bytes(seen[: end + 1], bits_per_s, burst_bytes + FLOOD_BYTES)
                found[f"{name}, packets too many"] = excess / FLOOD_BYTES
        return found

    @contextlib.contextmanager
    def flood(
        self, size_bytes: int, packets_per_s: float, seconds: float
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Send UDP to the pod, until the flood ends by itself."""
        words = (POD_ADDRESS, size_bytes - HEADERS_BYTES, packets_per_s, seconds)
        with entered(self._route.client):
            sender = subprocess.Popen([self._route.sender, *map(str, words)], stdout=subprocess.DEVNULL)
        try:
            yield sender
            if sender.wait() != 0:
                raise RuntimeError("the sender failed")
        finally:
            sender.kill()
            sender.wait()

    def use_up(self, burst_bytes: int) -> None:
        """Flood until no token is left."""
        with self.flood(FLOOD_BYTES, FLOOD_PACKETS_PER_S, 0.1 + burst_bytes / USED_UP_BYTES_PER_S):
            pass

    def udp(self, cell: Cell, burst_bytes: int) -> dict[str, float]:
        """Return sent and received traffic on the wire with an empty bucket, in percent of the rate."""
        # A bucket that was used up fills while the sender starts, and the surplus takes so long to use it up.
        filled_s = min(8 * burst_bytes / cell.rate_bits_per_s, START_S)
        settle_s = SETTLE_S + filled_s / (cell.load - 1)
        samples, output = self._route.samples_of(cell, 1, settle_s)
        (error_percent,) = errors_percent(samples, cell, 1, settle_s)
        sent, nanoseconds = (int(word) for word in output.split())
        offered_bits_per_s = 8 * cell.size_bytes * sent * 1e9 / nanoseconds
        return {
            "UDP sent, % of the rate": 100 * offered_bits_per_s / cell.rate_bits_per_s,
            "UDP, % of the rate": 100 + error_percent,
        }

    def capacity(self) -> dict[str, float]:
        """Small packets that one sender gets through a limit that is far away."""
        before = self._route.sample()
        with self.flood(PACKET_BYTES, FLOOD_PACKETS_PER_S, 1.0):
            pass
        after = self._route.sample()
        packets = (after.received_bytes - before.received_bytes) / PACKET_BYTES
        return {"64-byte packets, thousand/s": packets / 1000}


def compare(bench: Bench, route: Route, limiter: Limiter) -> Iterator[Sample]:
    """Yield all figures of one limiter, once."""
    for cell in COMPARED:
        with installed(route, limiter, cell.bits_per_s), bench.of(limiter):
            yield from samples(limiter, str(cell), bench.tcp(cell))
    for flows in BULK_FLOWS:
        with installed(route, limiter, RATE_BITS_PER_S), bench.of(limiter):
            name = f"beside {flows} bulk flow{'s' * (flows > 1)}"
            yield from samples(limiter, name, bench.latency(flows))
    if limiter.sends:
        return
    burst_bytes = limiter.burst_bytes(RATE_BITS_PER_S) if limiter.burst_bytes else None
    with installed(route, limiter, RATE_BITS_PER_S):
        found = bench.first_moments(RATE_BITS_PER_S, burst_bytes)
        yield from samples(limiter, "flood of UDP", found)
    yield from floods(bench, route, limiter)
    with installed(route, limiter, OUT_OF_REACH_BITS_PER_S):
        yield from samples(limiter, "far from the limit", bench.capacity())


def floods(bench: Bench, route: Route, limiter: Limiter) -> Iterator[Sample]:
    """Measure UDP above the rate, by packet size and offered load."""
    for rate, cells in itertools.groupby(UDP, lambda cell: cell.rate_bits_per_s):
        burst_bytes = limiter.burst_bytes(rate) if limiter.burst_bytes else 0
        with installed(route, limiter, rate):
            for cell in cells:
                bench.use_up(burst_bytes)  # again, as a deep bucket fills in any pause
                yield from samples(limiter, str(cell), bench.udp(cell, burst_bytes))


@contextlib.contextmanager
def installed(route: Route, limiter: Limiter, bits_per_s: int) -> Iterator[None]:
    """Install the limiter, whose bucket is full at first."""
    limiter.install(route, bits_per_s)
    try:
        yield
    finally:
        limiter.remove(route)


def samples(limiter: Limiter, cell: str, found: dict[str, float]) -> Iterator[Sample]:
    """Yield one for each number."""
    for what, value in found.items():
        yield Sample(limiter.name, what, cell, value)


def by_what(found: list[Sample]) -> peers_targets.Found:
    """Return the numbers, sorted."""
    values: peers_targets.Found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for each in found:
        values[each.what][each.limiter][each.cell].append(each.value)
    return values


def tables(found: peers_targets.Found) -> None:
    """Print a table for each number: limiters by cells, medians, with minimum and maximum."""
    for what, by_limiter in found.items():
        print(f"\n{what}: median (least-most)")
        for cell in dict.fromkeys(cell for cells in by_limiter.values() for cell in cells):
            print(f"  {cell}")
            for name, cells in by_limiter.items():
                if cell in cells:
                    numbers = cells[cell]
                    spread = f"({short(min(numbers))}-{short(max(numbers))})"
                    print(f"    {name:20}{short(statistics.median(numbers)):>10}  {spread}")


def short(number: float) -> str:
    """Three digits."""
    return f"{number:.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def options() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=Path, required=True, help="folder of the CNI plugins")
    parser.add_argument("--results", type=Path, help="write every sample there, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=None, help="these limiters")
    parser.add_argument(
        "--study",
        choices=[*STUDIES, UDP_ALONE, FAIRNESS, ORDER],
        help="not the comparison: TCP at many rates and RTTs, Drop's at many bursts, or for long;"
        " UDP; fairness; order of packets",
    )
    return parser.parse_args()


def permit_congestion_controls() -> None:
    """Permit every congestion control in all namespaces. Only the first namespace can set this."""
    for control in ("bbr", "reno", "cubic"):
        subprocess.run(["modprobe", f"tcp_{control}"], capture_output=True)
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").write_text(" ".join(known))


def main() -> int:
    """Run the comparison. Returns the exit status."""
    given = options()
    every = limiters(given.plugins)
    known = drops() if given.study == "bursts" else every
    chosen = [known[name] for name in given.only or known]
    print(machine(), flush=True)
    permit_congestion_controls()
    found: list[Sample] = []
    with lab.node() as node:
        request = node.folder / "request"
        for name in ("request", "sparse"):
            source = Path(__file__).with_name(f"{name}.c")
            subprocess.run(["gcc", "-O2", "-Wall", "-o", node.folder / name, source], check=True)
        route = Route(node)
        bench = Bench(route, request)
        bench.set_up()
        every["Drop"].remove(route)  # what the route begins with
        try:
            for number in range(given.rounds):
                for limiter in chosen:
                    print(f"round {number + 1}, {limiter.name}", file=sys.stderr, flush=True)
                    for each in measured(bench, route, limiter, given.study):
                        found.append(each)
                        if given.results:  # each time: a run that ends early has its numbers
                            given.results.write_text(json.dumps([asdict(each) for each in found]))
        finally:
            route.close()
    values = by_what(found)
    tables(values)
    return 0 if given.study or peers_targets.report(values) else 1


def fairness(bench: Bench, route: Route, limiter: Limiter) -> Fairness:
    """Return the measurements of flows that use one limit."""
    programs = (route.node.folder / name for name in ("request", "sparse"))
    burst_bytes = limiter.burst_bytes(RATE_BITS_PER_S) if limiter.burst_bytes else 0
    return Fairness(bench, RATE_BITS_PER_S, burst_bytes, *programs)


def shared(bench: Bench, route: Route, limiter: Limiter) -> Iterator[Sample]:
    """Yield the shares of flows that use one limit."""
    for name, measurement in fairness(bench, route, limiter).all(Tcp, ecn=limiter.ecn):
        with installed(route, limiter, RATE_BITS_PER_S), bench.of(limiter):
            yield from samples(limiter, name, measurement())


def ordered(bench: Bench, route: Route, limiter: Limiter) -> Iterator[Sample]:
    """Yield the packets that arrive late."""
    cell = Tcp(flows=8)
    with installed(route, limiter, RATE_BITS_PER_S), bench.of(limiter):
        yield from samples(limiter, str(cell), fairness(bench, route, limiter).order(cell))


def measured(bench: Bench, route: Route, limiter: Limiter, study: str | None) -> Iterator[Sample]:
    """Yield the comparison, or TCP or UDP of a study in every cell."""
    if not study:
        yield from compare(bench, route, limiter)
    elif study == UDP_ALONE and not limiter.sends:
        yield from floods(bench, route, limiter)
    elif study in {FAIRNESS, ORDER}:
        yield from (shared if study == FAIRNESS else ordered)(bench, route, limiter)
    for cell in STUDIES.get(study or "", ()):
        with installed(route, limiter, cell.bits_per_s), bench.of(limiter):
            yield from samples(limiter, str(cell), bench.tcp(cell))


if __name__ == "__main__":
    sys.exit(main())
