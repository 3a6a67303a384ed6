"""How flows share one limit: TCP and UDP side by side, requests beside bulk, many sparse flows.

``bench/peers.py --study fairness`` measures it with each limiter.
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyond import beyond
from exactness import HEADERS_BYTES
from order import overtaken

from tests.netns.lab import entered

if TYPE_CHECKING:
    from peers import Bench, Tcp

SECONDS, OMITTED_S = 4, 2
LATE_S = 2.0
MOST_GOODPUT = 0.956
"""Of the rate, after headers."""
REQUEST_S = 4.0
FLOOD_BYTES = 1400
FLOOD_LOAD = 10
SPARSE_FLOWS, SPARSE_BYTES, SPARSE_LOAD = 1000, 1000, 0.5
SILENCE_S = 0.1
"""Length of an interval of iperf3."""
_COUNTERS = {
    "TCPSACKReorder": "reordered",
    "TCPDSACKRecv": "spurious retransmissions",
    "RetransSegs": "retransmissions, from the start",
    "TCPTimeouts": "timeouts",
}
_INTERVAL = re.compile(r"^\[ *(\d+)\] +([\d.]+)-([\d.]+) +sec +([\d.]+) \w?Bytes(?!.*omitted)", re.MULTILINE)
"""Of one flow; the server has no JSON until its end, and would not say that it is ready."""
Numbers = dict[str, float]


@dataclass(frozen=True)
class Requests:
    """Requests beside bulk flows."""

    flows: int
    size_bytes: int
    pause_ms: int

    def __str__(self) -> str:
        flows = f"{self.flows} bulk flow{'s' * (self.flows > 1)}"
        return f"{self.size_bytes // 1024} KiB, pause {self.pause_ms} ms, beside {flows}"


REQUESTS = (
    Requests(1, 4096, 1),
    Requests(8, 4096, 1),
    Requests(8, 4096, 20),
    Requests(64, 4096, 20),
    Requests(8, 65536, 20),
)


def jain(rates: list[float]) -> float:
    """Return Jain's index of fairness."""
    squares = sum(rate**2 for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 0.0


@contextlib.contextmanager
def _counted(netns: str, numbers: Numbers) -> Iterator[None]:
    """Add how much the counters of the sender's TCP grow."""
    before = _counters(netns)
    yield
    after = _counters(netns)
    numbers |= {what: after[name] - before[name] for name, what in _COUNTERS.items()}


def _counters(netns: str) -> dict[str, int]:
    with entered(netns):
        lines = [
            line.split()[1:]
            for file in ("netstat", "snmp")
            for line in Path("/proc/thread-self/net", file).read_text().splitlines()
        ]
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        found |= dict(zip(names, map(int, values), strict=True))
    return found


class Fairness:
    """Measurements of one way through a limiter. ``rate`` is the limit in bits per second."""

    def __init__(self, bench: Bench, rate: int, burst_bytes: int, request: Path, sparse: Path) -> None:
        self._bench, self._rate, self._burst_bytes = bench, rate, burst_bytes
        self._request, self._sparse = request, sparse

    def _beyond(self, numbers: Numbers) -> AbstractContextManager[None]:
        return beyond(self._bench.way.target, self._rate, self._burst_bytes, numbers)

    @contextlib.contextmanager
    def _bulk(self, cell: Tcp, port: int, seconds: int, omitted: int) -> Iterator[subprocess.Popen[str]]:
        way = self._bench.way
        serve = ["iperf3", "--server", "--one-off", "--forceflush", "--interval", SILENCE_S]
        serve += ["--bind", way.address, "--port", port]
        words = ["iperf3", "--client", way.address, "--json", "--get-server-output", "--port", port]
        words += ["--congestion", cell.control, "--parallel", cell.flows]
        words += ["--time", seconds, "--omit", omitted, "--interval", SILENCE_S]
        with self._bench.serving(*map(str, serve)), entered(way.source):
            client = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
            try:
                yield client
            finally:
                client.kill()
                client.communicate()

    def tcp(self, cell: Tcp) -> Numbers:
        """Return goodput, fairness, losses, and the longest silence of a flow."""
        numbers: Numbers = {}
        with (
            self._bench.round_trip(cell.rtt_ms),
            _counted(self._bench.way.source, numbers),
            self._beyond(numbers),
            self._bulk(cell, 5201, SECONDS, OMITTED_S) as client,
        ):
            output, _ = client.communicate(timeout=900)
        rates, silence_s, retransmissions = _results(output)
        return {
            "goodput, % of the rate": 100 * sum(rates) / self._rate,
            "fairness (Jain)": jain(rates),
            "retransmissions": retransmissions,
            "longest silence, ms": 1000 * silence_s,
            **numbers,
        }

    def late(self, cell: Tcp, one: Tcp) -> Numbers:
        """Return the fairness of one flow and of others that start while it runs."""
        numbers: Numbers = {}
        with self._beyond(numbers), self._bulk(one, 5202, 300, 0):
            time.sleep(LATE_S)
            with self._bulk(cell, 5201, SECONDS, 0) as others:
                rates = _results(others.communicate(timeout=900)[0])[0]
        # The first flow has what the others leave: its own report covers another time.
        first = max(0.0, MOST_GOODPUT * self._rate - sum(rates))
        return {"fairness (Jain)": jain([*rates, first]), **numbers}

    def flood(self, cell: Tcp) -> Numbers:
        """Return the goodput of TCP beside a flood of UDP."""
        packets_per_s = FLOOD_LOAD * self._rate / (8 * FLOOD_BYTES)
        numbers: Numbers = {}
        with self._beyond(numbers), self._bulk(cell, 5201, SECONDS, OMITTED_S) as client:
            with self._bench.flood(FLOOD_BYTES, packets_per_s, SECONDS + OMITTED_S + 0.5):
                pass
            rates, _, _ = _results(client.communicate(timeout=900)[0])
        goodput_percent = 100 * sum(rates) / self._rate
        return {"goodput, % of the rate": goodput_percent, "fairness (Jain)": jain(rates), **numbers}

    def sparse(self, cell: Tcp) -> Numbers:
        """Return delay and loss of many sparse flows of UDP beside bulk."""
        way = self._bench.way
        packets_per_s = SPARSE_LOAD * self._rate / (8 * SPARSE_BYTES)
        words = [self._sparse, way.address, f"/run/netns/{way.target}", SPARSE_FLOWS]
        words += [SPARSE_BYTES - HEADERS_BYTES, packets_per_s, SECONDS]
        with self._bulk(cell, 5201, 300, 0), entered(way.source):
            time.sleep(OMITTED_S)
            done = subprocess.run(
                list(map(str, words)), check=True, capture_output=True, text=True, timeout=600
            )
        *delays, sent = map(int, done.stdout.split())
        cuts = statistics.quantiles([delay / 1e6 for delay in delays], n=100)
        return {"p50, ms": cuts[49], "p99, ms": cuts[98], "lost, %": 100 * (1 - len(delays) / sent)}

    def requests(self, requests: Requests, cell: Tcp) -> Numbers:
        """Return how long requests take beside bulk flows."""
        way = self._bench.way
        numbers: Numbers = {}
        words = ["ask", way.address, REQUEST_S, requests.size_bytes, requests.pause_ms]
        with contextlib.ExitStack() as stack:
            stack.enter_context(_counted(way.source, numbers))
            stack.enter_context(self._bench.serving(str(self._request), "serve", way.address))
            stack.enter_context(self._bulk(cell, 5201, 300, 0))
            time.sleep(OMITTED_S)
            with entered(way.source):
                command = [str(self._request), *map(str, words)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        cuts = statistics.quantiles([int(line) / 1e6 for line in done.stdout.split()], n=100)
        return {"p50, ms": cuts[49], "p99, ms": cuts[98], **numbers}

    def order(self, cell: Tcp) -> Numbers:
        """Return how many packets a later packet of their flow overtakes, and what the sender's TCP sees."""
        numbers: Numbers = {}
        with overtaken(self._bench.way.target, numbers):
            seen = self.tcp(cell)
        return numbers | {name: seen[name] for name in ("reordered", "spurious retransmissions")}

    def all(self, tcp: Callable[..., Tcp], *, ecn: bool) -> Iterator[tuple[str, Callable[[], Numbers]]]:
        """Yield each measurement and its name."""
        eight = tcp(flows=8)
        cells = [eight] if ecn else [eight, tcp(flows=64), tcp(flows=8, rtt_ms=10), tcp(flows=8, rtt_ms=50)]
        for cell in cells:
            yield str(cell), lambda cell=cell: self.tcp(cell)  # type: ignore[misc]
        for requests in REQUESTS[1:2] if ecn else REQUESTS:
            beside = tcp(flows=requests.flows)
            yield str(requests), lambda each=requests, beside=beside: self.requests(each, beside)  # type: ignore[misc]
        if not ecn:
            yield "8 flows start beside 1", lambda: self.late(eight, tcp())
            yield f"8 flows beside UDP, {FLOOD_LOAD} x the rate", lambda: self.flood(eight)
            yield f"{SPARSE_FLOWS} sparse flows beside 8 flows", lambda: self.sparse(eight)


def _results(output: str) -> tuple[list[float], float, float]:
    """Return the rates of the flows as received, the longest silence of a flow, and the retransmissions."""
    found: dict[str, Any] = json.loads(output)
    end = found["end"]
    rates = [each["receiver"]["bits_per_second"] for each in end["streams"]]
    return rates, _silence_s(found["server_output_text"]), end["sum_sent"]["retransmits"]


def _silence_s(report: str) -> float:
    """Return the longest time without data of any flow, in the report of the server."""
    longest, quiet = 0.0, defaultdict[str, float](float)
    for stream, begin, end, received in _INTERVAL.findall(report):
        if float(end) - float(begin) <= 2 * SILENCE_S:
            quiet[stream] = 0.0 if float(received) else quiet[stream] + SILENCE_S
            longest = max(longest, quiet[stream])
    return longest
