"""A fleet of agents against a real API server: what nodes and pods by the hundred cost it, and them.

Run as ``make bench-fleet``. etcd, API server, controller and agents are real, each agent with connections and
a token of its own; nodes and pods are objects and nothing else, and the agents' kernels are in memory.
``--reports`` measures the controller alone, with the reports of nodes that have no agent. With
``--in-memory``, there is no API server either.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import fleet_reports
import fleet_runs
from figures import Figure, print_table
from fleet_cluster import fleet_of, say
from fleet_faults import AWAY_S, edit_loop, outage, restarts
from fleet_scenarios import footprint, pod_changes, policy_changes, relists, rest, start
from run import machine

from cluster.versions import versions

Part = tuple[str, Callable[[], list[Figure]]]


def warnings(logs: Path) -> Counter[str]:
    """Return the warnings of agents and controller, by event."""
    found: Counter[str] = Counter()
    for log in logs.glob("*.log"):
        for line in log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"level": "error", "event": line[:100]}
            if entry["level"] != "info":
                found[f"{log.stem.partition('-')[0]}: {entry['event'].partition(' GET ')[0]}"] += 1
    return found


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument(
        "--policies",
        type=int,
        default=10,
        help="each with pods on every node; the first ones of each pod win",
    )
    parser.add_argument(
        "--pods-per-node",
        type=int,
        default=30,
        help="each of another application, up to the number of policies",
    )
    parser.add_argument("--reports", type=int, default=0, help="nodes of a controller without agents")
    parser.add_argument("--in-memory", action="store_true", help="with --reports: without an API server")
    parser.add_argument("--changes", type=int, default=6, help="how many of each kind, at least 2")
    parser.add_argument("--rest", type=float, default=90.0, help="seconds in which nothing happens")
    parser.add_argument("--report-spread", type=float, default=0.0, help="of the agents; 0 derives it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the chart"
    )
    options = parser.parse_args()
    if options.changes < 2:
        parser.error("--changes must be at least 2")
    return options


def main() -> int:
    """Run the benchmark. Returns the exit status: 1 if a target is missed."""
    options = arguments()
    if os.geteuid() != 0:
        print("make bench-fleet: needs root, for the namespaces of the cluster", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; Kubernetes {versions().kubernetes}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        if options.reports and options.in_memory:
            title = f"Runs of a controller with {options.reports} nodes, in memory"
            met = measured((title, partial(fleet_runs.measure, options)))
        elif options.reports:
            title = f"A controller with {options.reports} nodes"
            met = measured((title, partial(fleet_reports.measure, options, Path(folder))))
        else:
            met = measure_fleet(options, Path(folder))
        for text, count in warnings(Path(folder)).most_common():
            print(f"  {count:6} x {text}")
    say("done")
    return 0 if met else 1


def measure_fleet(options: argparse.Namespace, folder: Path) -> bool:
    """Measure all scenarios with agents. Returns whether all targets are met."""
    size = (
        f"{options.nodes} agents, {options.nodes * options.pods_per_node} pods, {options.policies} policies"
    )
    with fleet_of(options, folder) as fleet:
        parts: list[Part] = [
            (f"All agents start: {size}", partial(start, fleet)),
            ("A new rate in one policy, enforced on every node", partial(policy_changes, fleet)),
            ("A pod gets another label, and so another policy", partial(pod_changes, fleet)),
            ("Every agent lists everything again", partial(relists, fleet)),
            (f"At rest, {options.rest:.0f} s", partial(rest, fleet)),
            ("A tenth of the agents restarts", partial(restarts, fleet)),
            (f"The API server is away for {AWAY_S:.0f} s", partial(outage, fleet)),
            ("A tenant edits a policy in a loop", partial(edit_loop, fleet)),
            ("Memory after all that", partial(footprint, fleet)),
        ]
        return min(measured(part) for part in parts)  # all of them, also after a missed target


def measured(part: Part) -> bool:
    """Print a table. Return whether all its targets are met."""
    title, measure = part
    say(title)
    met = print_table(title, measure())
    sys.stdout.flush()
    return met


if __name__ == "__main__":
    sys.exit(main())
