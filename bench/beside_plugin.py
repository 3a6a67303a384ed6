"""On a real cluster: a pod that a policy limits, beside one that the CNI bandwidth plugin does.

Both are on the node in a virtual machine, whose kernel has ``fq``; TCP and requests come from another node.
Each round measures both in turn, and a pod without a limit that nothing else is sent to. Run as
``make bench-cluster-peers``.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from figures import Figure, print_table
from run import machine

from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up
from cluster.workloads import pod, server
from tests.e2e.image import operator_image
from tests.e2e.release import Release, policy, wait_ready
from tests.e2e.traffic import address, tcp

RATE_BITS_PER_S = 50_000_000
USED_UP_S = 15
"""The plugin's burst, 268 MB where the annotation is all that is given, takes so long."""
SECONDS = 10
REQUEST_BYTES = 64
LEAST_PERCENT, MOST_PERCENT = 93.0, 101.0
MEDIAN_TIMES, P99_TIMES = 8.0, 3.0
ANNOTATION = {"kubernetes.io/ingress-bandwidth": "50M"}


@dataclass
class Measured:
    """Of one pod, over the rounds."""

    goodput_percent: list[float] = field(default_factory=list)
    median_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def add_requests(here: Kubectl, name: str, program: bytes) -> None:
    """Put the program for requests into a pod."""
    text = base64.b64encode(program).decode()
    words = ("sh", "-c", "base64 -d >/tmp/request && chmod +x /tmp/request")
    here.run("exec", "--stdin", name, "--", *words, stdin=text)


def answer_requests(here: Kubectl, name: str) -> None:
    """Make a pod answer them."""
    here.exec(name, "sh", "-c", f"/tmp/request serve {address(here, name)} >/dev/null 2>&1 &")


def ask(here: Kubectl, name: str) -> list[float]:
    """Milliseconds from each request to its response."""
    words = ("/tmp/request", "ask", address(here, name), str(SECONDS), str(REQUEST_BYTES))
    return [int(line) / 1e6 for line in here.exec("client", *words, timeout_s=SECONDS + 60).split()]


def measure(here: Kubectl, name: str, found: Measured, *, bulk: bool) -> None:
    """Run one round of one pod."""
    with ThreadPoolExecutor(1) as pool:
        seconds = SECONDS + 4  # requests begin and end within it
        flow = pool.submit(tcp, here, "client", name, seconds, omit=USED_UP_S) if bulk else None
        if flow:
            with contextlib.suppress(TimeoutError):
                flow.result(USED_UP_S + 2)
        times = ask(here, name)
        if flow:
            found.goodput_percent.append(100 * flow.result().bits_per_s / RATE_BITS_PER_S)
    found.median_ms.append(statistics.median(times))
    found.p99_ms.append(statistics.quantiles(times, n=100)[98])


def at_least(name: str, samples: list[float], least: float, unit: str) -> Figure:
    """Return a figure whose median must reach a limit."""
    return Figure(name, samples, unit, f">= {least:g}", statistics.median(samples) >= least)


def report(free: Measured, delay: Measured, plugin: Measured) -> bool:
    """Print the tables. Returns whether every target is met."""
    rows = {"no limit, nothing else sent": free, "policy, Delay": delay, "CNI bandwidth plugin": plugin}
    within = all(LEAST_PERCENT <= each <= MOST_PERCENT for each in delay.goodput_percent)
    bounds = f"{LEAST_PERCENT:g}-{MOST_PERCENT:g}"
    met = print_table(
        "TCP goodput, in percent of 50 Mbit/s",
        [
            Figure("policy, Delay", delay.goodput_percent, "%", bounds, within),
            Figure("CNI bandwidth plugin", plugin.goodput_percent, "%"),
        ],
    )
    parts = (("median", "median_ms", MEDIAN_TIMES), ("99th percentile", "p99_ms", P99_TIMES))
    for title, times, least in parts:
        figures = [Figure(name, getattr(each, times), "ms") for name, each in rows.items()]
        pairs = zip(getattr(plugin, times), getattr(delay, times), strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        met &= print_table(
            f"From request to response beside one bulk flow: the {title} of each round",
            [*figures, at_least("the plugin's, in times of the policy's", ratios, least, "x")],
        )
    return met


@contextlib.contextmanager
def pods(here: Kubectl, node: str, other: str) -> Iterator[None]:
    """Provide the three pods on one node, and the client on another."""
    plugged = server("plugin", node)
    plugged["metadata"]["annotations"] = ANNOTATION
    here.apply(server("free", node), server("delay", node), plugged, pod("client", other))
    here.apply(policy("delay", "delay", ingress={"rate": {"bits": RATE_BITS_PER_S}}))
    here.wait("condition=Ready", "pod", "--all", timeout_s=300)
    wait_ready(here, "delay", 1)
    print(here.run("get", "tbp"))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "request")
        source = Path(__file__).with_name("request.c")
        subprocess.run(["gcc", "-O2", "-static", "-o", program, source], check=True)
        for name in ("free", "delay", "plugin", "client"):
            add_requests(here, name, program.read_bytes())
    for name in ("free", "delay", "plugin"):
        answer_requests(here, name)
    yield


def main() -> int:
    """Run the comparison. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    made = up(lambda text: print(text, file=sys.stderr), vm=True, images=[operator_image()])
    try:
        Release(made.kubectl).install()
        [held] = [node.name for node in made.nodes if node.kind != "namespace"]
        other = next(node.name for node in made.nodes if node.kind == "namespace")
        print(f"{datetime.now(UTC):%Y-%m-%d}; {machine()}")
        free, delay, plugin = Measured(), Measured(), Measured()
        with made.kubectl.fresh_namespace("bench") as here, pods(here, held, other):
            for number in range(rounds):
                print(f"round {number + 1}", file=sys.stderr, flush=True)
                measure(here, "free", free, bulk=False)
                measure(here, "delay", delay, bulk=True)
                measure(here, "plugin", plugin, bulk=True)
        met = report(free, delay, plugin)
    finally:
        down()
    print("\nevery target is met" if met else "\na target was missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
