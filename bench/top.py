"""Time of the screens of ``kubectl tokenbucket top``, and of the agents that answer: ``make bench-top``.

Two nodes of the harness's cluster have 110 pods with a limit in each direction. The goals are a first screen
within 1 s, a screen each second, and less than 1 % of a core more for an agent that is watched.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from bench.figures import Figure, at_most, below, print_table

from cluster.cluster import Cluster, find
from cluster.images import PAUSE_TAG
from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up
from cluster.node_shell import node_shells
from cluster.workloads import pod
from tests.e2e.agent_process import processor_s
from tests.e2e.image import operator_image
from tests.e2e.release import Release, policy, wait_ready

NAMESPACE = "bench"
PODS = 110
LIMITS = 2 * PODS
STARTS = 10
WATCHED_S = 60
FIRST_MS, PERCENT = 1000.0, 1.0
COLUMNS, LINES = 200, 50
TITLE = b"nodes answered"
PATIENCE_S = 60.0


@contextmanager
def top(cluster: Cluster) -> Iterator[tuple[float, Iterator[float]]]:
    """Run the command in a terminal. Provide the time of its start, and the times of its screens."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    programs = f"{Path(cluster.kubectl.program).parent}:{Path(sys.executable).parent}"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm-256color"}
    environment |= {"KUBECONFIG": str(cluster.kubeconfig), "HOME": os.environ["HOME"]}
    command = [cluster.kubectl.program, "tokenbucket", "top", "-n", NAMESPACE]
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    try:
        yield start, screens(master)
    finally:
        process.terminate()
        while shown(master):
            pass
        process.wait()
        os.close(master)


def screens(terminal: int) -> Iterator[float]:
    """Yield the time at which each screen about all limits is complete."""
    text = b""
    while True:
        found = shown(terminal)
        if not found:
            raise SystemExit(f"top ended: {text.decode(errors='replace')[-500:]}")
        text += found
        while TITLE in text and text.partition(TITLE)[2].count(b"\n") > LINES - 10:
            title, _, text = text.partition(TITLE)
            if f"{LIMITS} limits".encode() in title and b"2 of 2" in title:
                yield time.monotonic()


def shown(terminal: int) -> bytes:
    """Return what the terminal shows next; nothing after the end of the command."""
    if not select.select([terminal], [], [], PATIENCE_S)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def report(cluster: Cluster, nodes: list[str]) -> bool:
    """Print the table. Return whether all goals are met."""
    first: list[float] = []
    for _ in range(STARTS):
        with top(cluster) as (start, times):
            first.append(1000 * (next(times) - start))
    with node_shells(cluster.kubectl) as shell:

        def share(node: str, before: float, seconds: float) -> float:
            return 100 * (processor_s(shell, node) - before) / seconds

        alone = {node: processor_s(shell, node) for node in nodes}
        time.sleep(WATCHED_S)
        alone = {node: share(node, before, WATCHED_S) for node, before in alone.items()}
        with top(cluster) as (_, times):
            next(times)
            seen = [next(times)]
            watched = {node: processor_s(shell, node) for node in nodes}
            while seen[-1] - seen[0] < WATCHED_S:
                seen.append(next(times))
            watched = {node: share(node, before, WATCHED_S) for node, before in watched.items()}
    more = [watched[node] - alone[node] for node in nodes]
    return print_table(
        f"kubectl tokenbucket top, {PODS} pods with {LIMITS} limits on {len(nodes)} nodes",
        (
            below("from the start to the first screen", first, FIRST_MS, "ms"),
            below("from a screen to the next", [1000 * (b - a) for a, b in pairwise(seen)], 1100, "ms"),
            Figure("an agent, not watched", [*alone.values()], "%"),
            Figure("an agent, watched", [*watched.values()], "%"),
            at_most("difference", more, PERCENT, "%"),
        ),
    )


def declare(here: Kubectl, nodes: list[str]) -> None:
    """Create the pods and their policy."""
    limit = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}
    here.apply(policy("all", ingress=limit, egress=limit))
    here.apply(*(idle_pod(f"web-{number}", nodes[number % len(nodes)]) for number in range(PODS)))
    here.wait("condition=Ready", "pod", "--all", timeout_s=400)
    wait_ready(here, "all", PODS)


def idle_pod(name: str, node: str) -> dict[str, object]:
    """Return a pod that uses almost nothing."""
    document = pod(name, node)
    document["spec"]["containers"] = [{"name": "idle", "image": PAUSE_TAG}]
    return document


def main() -> int:
    """Measure, and print a table. Return the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    was_up = find() is not None
    cluster = up(lambda text: print(text, file=sys.stderr), images=[operator_image()])
    try:
        Release(cluster.kubectl).install()
        nodes = [node.name for node in cluster.nodes if node.kind == "namespace"][:2]
        with cluster.kubectl.fresh_namespace(NAMESPACE) as here:
            declare(here, nodes)
            print(f"{datetime.now(UTC):%Y-%m-%d}; load {os.getloadavg()[0]:.1f}", flush=True)
            met = report(cluster, nodes)
    finally:
        if not was_up:
            down()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
