"""What ``make bench-fleet`` measures while everything works."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from arrival import percentile_99
from figures import Figure, at_most
from fleet_cluster import POLICIES, Fleet, wait_for
from fleet_objects import NAMESPACE, pod_name
from fleet_window import (
    PARTS,
    Window,
    bytes_figures,
    is_ours,
    own_mib,
    peak_mib,
    processor_figures,
    request_figures,
    resident_mib,
)

from tokenbucket.pacing import ReportPace

STARTS_PER_S = 8.0
"""As many agents as two CPUs can start, which elsewhere have a node each."""
QUIET_S = 6.0
"""After each change, so that what follows from it is counted as its own."""


def start(fleet: Fleet) -> list[Figure]:
    """Start all agents, with existing pods and policies."""
    before, nodes = fleet.now(), fleet.nodes
    for node in range(nodes):
        fleet.agents.append(fleet.begin(node))
        time.sleep(max(0.0, before.at_s + node / STARTS_PER_S - time.monotonic()))
    reported = wait_for(lambda: sum(fleet.ask("reported")) == nodes, "all agents' first report", 0.5)
    wait_for(fleet.all_ready, "the policies' status", 2.0)
    time.sleep(QUIET_S)
    window = fleet.since(before)
    lists = window.metrics.sum("apiserver_cache_list_total", resource="pods")
    fetched = window.metrics.sum("apiserver_cache_list_fetched_objects_total", resource="pods")
    watches = fleet.now().metrics.by("apiserver_longrunning_requests", ("verb", "resource"))
    own = sum(count for (verb, what), count in watches.items() if verb == "WATCH" and is_ours(what))
    return [
        Figure("until the last agent's first report", [reported - before.at_s], "s"),
        *request_figures([window], nodes, "an agent"),
        Figure("watches open, an agent", [own / nodes], ""),
        Figure("lists of pods from the API server's cache", [lists], ""),
        Figure("  objects that it looked at, a list", [fetched / max(lists, 1)], ""),
        *(
            Figure(f"  lists that went to etcd: {kind}", [count], "")
            for (operation, kind), count in window.metrics.by(
                "etcd_request_duration_seconds_count", ("operation", "resource")
            ).items()
            if operation.startswith("list")
        ),
        *bytes_figures([window], nodes, "an agent"),
        *processor_figures([window], nodes),
    ]


def policy_changes(fleet: Fleet) -> list[Figure]:
    """Change the rate of one of the applications, which has pods on every node."""
    windows: list[Window] = []
    medians, lasts, statuses, reports = [], [], [], []
    for change in range(fleet.options.changes):
        name = f"app-{change % fleet.apps}"
        before, begin = fleet.now(), time.monotonic()
        changed = fleet.merge(
            "tokenbucketpolicies",
            f"{POLICIES}/{name}",
            {"spec": {"ingress": {"rate": {"bits": 20_000_000 + change * 1000}}}},
        )
        generation = changed["metadata"]["generation"]
        statuses.append(wait_for(lambda n=name, g=generation: fleet.active(n, g), "status") - begin)
        wait_for(lambda n=name, g=generation: len(fleet.written(n, g)) == fleet.nodes, "all slots")
        time.sleep(QUIET_S)
        windows.append(fleet.since(before))
        reports.append(max(most_in(each, pace_of(fleet).spread_s) for each in fleet.reports_since(begin)))
        times = [1000 * (each - begin) for each in fleet.written(name, generation)]
        medians.append(statistics.median(times))
        lasts.append(max(times))
    return [
        Figure("until half of the agents wrote their slots", medians, "ms"),
        Figure("until the last one did", lasts, "ms"),
        Figure("  its 99th percentile", [percentile_99(lasts)], "ms"),
        Figure("until the policy's status shows it", statuses, "s"),
        at_most("reports of one agent in a spread, most", reports, 1, ""),
        at_most(
            "statuses written, a change", [each.writes("tokenbucketpolicies") for each in windows], 2, ""
        ),
        *request_figures(windows, 1, "a change"),
        *bytes_figures(windows, 1, "a change"),
        *processor_figures(windows, fleet.nodes),
    ]


def pace_of(fleet: Fleet) -> ReportPace:
    """Return the pace of the agents' reports."""
    return ReportPace(fleet.options.report_spread, fleet.nodes)


def most_in(times: Sequence[float], seconds: float) -> int:
    """Return the maximum number of times in any interval of this length."""
    return max((sum(1 for each in times if begin <= each < begin + seconds) for begin in times), default=0)


def pod_changes(fleet: Fleet) -> list[Figure]:
    """Change the label of one pod to that of another application, and so its policy."""
    windows = []
    for change in range(fleet.options.changes):
        node = random.randrange(fleet.nodes)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod_name(node, change % fleet.options.pods_per_node)}"
        before = fleet.now()
        app = (change % fleet.options.pods_per_node + 1) % fleet.apps
        fleet.merge("pods", path, {"metadata": {"labels": {"app": f"app-{app}"}}})
        time.sleep(QUIET_S)
        windows.append(fleet.since(before))
    return [
        *request_figures(windows, 1, "a change"),
        *(
            Figure(f"events of {resource}", [each.events().get(resource, 0) for each in windows], "")
            for resource in sorted({resource for each in windows for resource in each.events()})
        ),
        *bytes_figures(windows, 1, "a change"),
        *(figure for figure in processor_figures(windows, 1)),
    ]


def relists(fleet: Fleet) -> list[Figure]:
    """Let each agent list all its objects again, one after another."""
    before = fleet.now()
    for agent in fleet.agents:
        agent.ask("relist")
        agent.answer()
    window = fleet.since(before)
    return [
        *request_figures([window], fleet.nodes, "an agent"),
        *bytes_figures([window], fleet.nodes, "an agent"),
        *processor_figures([window], fleet.nodes),
        Figure("  API server, an agent", [1000 * window.processor_s["kube-apiserver"] / fleet.nodes], "ms"),
    ]


def rest(fleet: Fleet) -> list[Figure]:
    """Nothing happens."""
    before = fleet.now()
    time.sleep(fleet.options.rest)
    window = fleet.since(before)
    minutes = window.seconds / 60
    percent = {part: 100 * taken / window.seconds for part, taken in window.processor_s.items()}
    return [
        *request_figures([window], fleet.nodes * minutes, "an agent and minute"),
        *bytes_figures([window], fleet.nodes * minutes, "an agent and minute"),
        at_most("a run of the controller", fleet.runs_since(before.at_s), 50, "ms"),
        Figure("processor, an agent", [percent["agents"] / fleet.nodes], "%"),
        *(Figure(f"processor, {part}", [percent[part]], "%") for part in PARTS[:3]),
    ]


def footprint(fleet: Fleet) -> list[Figure]:
    metrics = fleet.now().metrics
    agents = [own_mib(each.pid) for each in fleet.agents]
    etcd = fleet.cluster.root.component("etcd").pid
    return [
        Figure("an agent, without what all share", agents, "MiB"),
        Figure("controller", [resident_mib(fleet.controller.pid)], "MiB"),
        at_most("  its peak", [peak_mib(fleet.controller.pid)], 256, "MiB"),
        Figure("kube-apiserver", [metrics.sum("process_resident_memory_bytes") / 2**20], "MiB"),
        Figure("etcd", [resident_mib(etcd)], "MiB"),
        Figure(
            "requests that the API server rejected", [metrics.sum("apiserver_request_total", code="429")], ""
        ),
        Figure(
            "watches that it ended, being too slow", [metrics.sum("apiserver_terminated_watchers_total")], ""
        ),
    ]
