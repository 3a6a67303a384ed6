"""Processor time of an agent whose live figures are read once a second: ``make bench-live``.

The node has 110 pods with a limit in each direction. A client asks for all of them, as ``kubectl tokenbucket
top`` does. The goal is 1 % of a core more than without a client.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
import urllib.request
import uuid

import yaml
from bench import lab
from bench.figures import Figure, below, print_table
from bench.idle import processor_s

from tests.netns.agent import document, drop, policy, wait
from tokenbucket.core.api.live import AGENT_PATH

PODS = 110
HOST = "127.0.0.1"
GOAL_PERCENT = 1.0


def declare(node: lab.Node) -> list[str]:
    """Create the pods and their policy. Return their uids."""
    documents, uids = [], [str(uuid.uuid4()) for _ in range(PODS)]
    for number, uid in enumerate(uids):
        pod = document(node.lab.pod(f"p{number}", [f"10.{number + 2}.1.2/24"]), app="bench")
        pod["metadata"]["uid"] = uid
        documents.append(pod)
    limits = {direction: drop(bits="10M", depth="125000") for direction in ("ingress", "egress")}
    node.declare("policy.yaml", yaml.safe_dump(policy("bench", app="bench", **limits)))
    node.declare("pods.yaml", yaml.safe_dump_all(documents))
    return uids


def share_percent(pid: int, seconds: float, work: object) -> float:
    """Return the share of a core while ``work`` is called once a second."""
    before, start = processor_s(pid), time.monotonic()
    for second in range(1, round(seconds) + 1):
        if callable(work):
            work()
        time.sleep(max(0.0, start + second - time.monotonic()))
    return 100 * (processor_s(pid) - before) / (time.monotonic() - start)


def main() -> int:
    """Measure pairs of runs, and print a table. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of a run (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (default %(default)s)")
    options = parser.parse_args()
    with lab.node() as node, socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
        free.close()
        uids = declare(node)
        node.options = ("--live-address", f"{HOST}:{port}")
        node.start_agent()
        wait(lambda: len(node.events("attached")) >= 2 * PODS, node.agent.log)
        time.sleep(10)
        content = json.dumps({"uids": uids}).encode()
        answers, sizes = [], []

        def ask() -> None:
            start = time.perf_counter()
            with urllib.request.urlopen(
                urllib.request.Request(f"http://{HOST}:{port}{AGENT_PATH}", content)
            ) as answer:
                found = answer.read()
            answers.append(1000 * (time.perf_counter() - start))
            sizes.append(len(found) / 1024)
            pods = json.loads(found)["pods"]
            assert sum(limit["active"] for pod in pods for limit in pod["limits"]) == 2 * PODS

        pid = node.agent.process.pid
        alone, watched = [], []
        for _ in range(options.pairs):
            alone.append(share_percent(pid, options.seconds, None))
            watched.append(share_percent(pid, options.seconds, ask))
        more = [with_client - without for without, with_client in zip(alone, watched, strict=True)]
        met = print_table(
            f"An agent with {PODS} pods and {2 * PODS} limits, in percent of a core",
            (
                Figure("not watched", alone, "%"),
                Figure("watched once a second", watched, "%"),
                below("difference", more, GOAL_PERCENT, "%"),
                Figure("time of an answer", answers, "ms"),
                Figure("size of an answer", sizes, "KiB"),
            ),
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
