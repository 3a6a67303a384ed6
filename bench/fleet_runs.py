"""Runs of a controller whose stores contain generated reports, without an API server."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from figures import Figure, at_most
from fleet_objects import NAMESPACE, node_document, node_name
from fleet_reports import report_document
from fleet_window import peak_mib

from tokenbucket.apiserver.connection import Outage
from tokenbucket.apiserver.resources import POLICIES, Resource
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.objects import Stores, read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler
from tokenbucket.core.api.parse import API_VERSION, POLICY

WRITING_RUNS, RUNS = 100, 60
"""The budget of writes lets the first statuses take some time."""
PERIOD_S = 20
"""Of the reports of each node. A run takes place every second."""


class Server:
    """Accepts each write, and delivers it to the stores."""

    def __init__(self, nodes: int, policies: int) -> None:
        self.stores = Stores(Store(read_policy), Store(read_report), Store(read_agent), Store(read_node))
        self._policies = {f"app-{number}": f"uid-{number}" for number in range(policies)}
        self._conditions: dict[str, Any] = {}
        self._version = 0
        for number in range(nodes):
            self._put(self.stores.nodes, node_document(number))
            self.report(number)
        for name in self._policies:
            self._put_policy(name, {})

    def report(self, number: int) -> None:
        """Store a new report of a node."""
        document, name = report_document(number, self._policies), node_name(number)
        document["metadata"]["uid"] = name
        document["status"]["syncPeriodSeconds"] = PERIOD_S
        document["status"]["conditions"] = self._conditions.get(name, [])
        self._put(self.stores.reports, document)

    def _put_policy(self, name: str, status: Mapping[str, Any]) -> None:
        metadata = {"namespace": NAMESPACE, "name": name, "uid": self._policies[name], "generation": 1}
        spec = {"podSelector": {"matchLabels": {"app": name}}, "ingress": {"rate": {"bits": "20M"}}}
        document = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": metadata, "spec": spec}
        self._put(self.stores.policies, {**document, "status": status})

    def _put(self, store: Store[Any], document: dict[str, Any]) -> None:
        self._version += 1
        metadata = {**document["metadata"], "resourceVersion": str(self._version)}
        store.put({**document, "metadata": metadata})

    async def apply(self, resource: Resource, document: Mapping[str, Any], *_: str) -> None:
        """Store a status, or the condition of a report."""
        name = document["metadata"]["name"]
        if resource == POLICIES:
            self._put_policy(name, document["status"])
        else:
            self._conditions[name] = document["status"]["conditions"]


def measure(options: argparse.Namespace) -> list[Figure]:
    """Return the CPU times of runs, and the memory of the process."""
    server, clock = Server(options.reports, options.policies), [1000.0]
    heartbeats = Heartbeats(Outage, lambda: clock[0], lambda: time.time() + clock[0] - 1000.0)
    reconciler = StatusReconciler(server.stores, lambda _: None, heartbeats)
    with asyncio.Runner() as runner:

        def run(number: int) -> float:
            clock[0] += 1
            for node in range(number % PERIOD_S, options.reports, PERIOD_S):
                server.report(node)
            begin_s = time.thread_time()
            runner.run(reconciler.reconcile(server))  # type: ignore[arg-type]
            return 1000 * (time.thread_time() - begin_s)

        first, *writing = map(run, range(WRITING_RUNS))
        idle = [run(number) for number in range(RUNS)]
    return [
        Figure("the run that computes all statuses", [first], "ms"),
        Figure("runs that write the statuses", writing, "ms"),
        Figure("idle runs: only regular reports are new", idle, "ms"),
        # Other programs on the machine make a run longer, and none makes it shorter.
        at_most("an idle run, median", [statistics.median(idle)], 50, "ms"),
        at_most("memory of the process, its peak", [peak_mib(os.getpid())], 256, "MiB"),
    ]
