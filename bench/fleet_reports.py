"""A controller with the reports of many nodes, which nothing but this benchmark writes."""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from figures import Figure, at_most
from fleet_cluster import (
    AGENT,
    POLICIES,
    controller,
    ready_conditions,
    runs_since,
    server_with_chart,
    wait_for,
)
from fleet_objects import NAMESPACE, Admin, agent_name, bring_up, node_document, node_name, pod
from fleet_window import peak_mib, processor_s, resident_mib

from tokenbucket.core.api.node_report import (
    AgentInfo,
    NodeReport,
    PodCounts,
    PolicyReport,
    Sync,
    WatchContact,
    to_document,
)
from tokenbucket.core.api.policy import FEATURES

WRITERS = 2
PERIOD_S = 300
"""Of the reports: this machine writes fewer than all agents of so many nodes do. No report may be late."""
MEASURED_S, RUNS = 60.0, 10
"""Least duration and number of runs. A loaded machine makes runs rare."""
RELIST_S = 30.0
_REPORTS = "/apis/tokenbucket.dev/v1alpha1/tokenbucketnodes"
_APPLY = "application/apply-patch+yaml"
_LIMIT = "20Mbit/s, burst 1.25MB, Drop"
Config = Mapping[str, Any]


def measure(options: argparse.Namespace, folder: Path) -> list[Figure]:
    """Return memory of the controller, and the CPU time of its runs."""
    os.environ["FLEET_RELIST_S"] = str(RELIST_S)
    with server_with_chart(options, folder) as (_, kubectl, config):
        admin = Admin(config)
        uids = {
            each["metadata"]["name"]: each["metadata"]["uid"]
            for each in admin.request("GET", POLICIES)["items"]
        }
        with ProcessPoolExecutor(2 * WRITERS) as pool:
            count = 2 * WRITERS
            parts = [range(part, options.reports, count) for part in range(count)]
            list(pool.map(_create, [config] * count, parts, [uids] * count))
        with (
            heartbeats(config, options.reports, uids) as written,
            controller(kubectl, config, folder) as here,
        ):
            runs = folder / "runs"

            def all_ready() -> bool:
                return all(each["status"] == "True" for each in ready_conditions(admin).values())

            wait_for(all_ready, "the policies' status", 2.0)
            time.sleep(5.0)
            begin_s, begin, busy_s = time.monotonic(), len(written), processor_s(here.pid)
            time.sleep(MEASURED_S)
            wait_for(lambda: len(runs_since(runs, begin_s)) >= RUNS, "the runs")
            seconds = time.monotonic() - begin_s
            percent = 100 * (processor_s(here.pid) - busy_s) / seconds
            idle = runs_since(runs, begin_s)
            return [
                Figure("reports", [options.reports], ""),
                Figure("policies in each", [len(uids)], ""),
                Figure("reports written a second", [(len(written) - begin) / seconds], ""),
                at_most("an idle run", [statistics.median(idle)], 50, "ms"),
                Figure("all idle runs", idle, "ms"),
                Figure("the run that computes all statuses", [max(_before(runs, begin_s))], "ms"),
                Figure("processor", [percent], "%"),
                Figure("memory", [resident_mib(here.pid)], "MiB"),
                at_most("  its peak, with first and later lists", [peak_mib(here.pid)], 256, "MiB"),
            ]


def _before(runs: Path, at_s: float) -> list[float]:
    found = runs_since(runs, 0.0)
    return found[: len(found) - len(runs_since(runs, at_s))]


@contextmanager
def heartbeats(config: Config, nodes: int, uids: Mapping[str, str]) -> Iterator[list[float]]:
    """Provide reports of all nodes, one after another, for the block. Yields the times."""
    ended, times = threading.Event(), list[float]()

    def write(part: int) -> None:
        admin = Admin(config)
        while not ended.is_set():
            for node in range(part, nodes, WRITERS):
                if ended.is_set():
                    return
                with suppress(RuntimeError, OSError):  # a busy server rejects it; the next one follows
                    _report(admin, node, uids)
                    times.append(time.monotonic())

    threads = [threading.Thread(target=write, args=(part,), daemon=True) for part in range(WRITERS)]
    for each in threads:
        each.start()
    try:
        yield times
    finally:
        ended.set()
        for each in threads:
            each.join()


def _create(config: Config, nodes: range, uids: Mapping[str, str]) -> None:
    """Create nodes, the pods of their agents, and first reports."""
    admin, (namespace, account, labels) = Admin(config), AGENT
    for node in nodes:
        admin.request("POST", "/api/v1/nodes", node_document(node))
        bring_up(admin, pod(namespace, agent_name(node), node, labels, account), "192.0.2.1")
        _report(admin, node, uids)


def _report(admin: Admin, node: int, uids: Mapping[str, str]) -> None:
    """Write a report as the agent does."""
    path = f"{_REPORTS}/{node_name(node)}?fieldManager=tokenbucket-agent&force=true"
    admin.request("PATCH", path, report_document(node, uids), _APPLY)


def report_document(node: int, uids: Mapping[str, str]) -> dict[str, Any]:
    """Return a report in which each policy limits one pod of the node in both directions."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    both = ("ingress", "egress")
    policies = tuple(
        PolicyReport(
            NAMESPACE,
            name,
            uid,
            1,
            pods=PodCounts(1, 1),
            effective=dict.fromkeys(both, _LIMIT),
            action=dict.fromkeys(both, "Drop"),
        )
        for name, uid in uids.items()
    )
    watches = tuple(
        WatchContact(kind, now) for kind in ("configmaps", "nodes", "pods", "tokenbucketpolicies")
    )
    report = NodeReport(
        agent=AgentInfo("bench", agent_name(node), "", FEATURES),
        sync=Sync(now, PERIOD_S, 2**62, watches),
        enforcement="Enforce",
        limits=2 * len(uids),
        policies=policies,
    )
    return {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketNode",
        "metadata": {"name": node_name(node)},
        "status": to_document(report),
    }
