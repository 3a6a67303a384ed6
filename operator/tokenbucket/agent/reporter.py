"""Write the state of the node to the API server, in a thread of its own: a slow answer delays no limit.

The agent writes its own TokenBucketNode and, if it is allowed to, the condition of pods with the readiness
gate and the taint of its own node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Iterator
from functools import partial

from tokenbucket import units
from tokenbucket.agent.cluster import NOT_READY_TAINT, ClusterSource
from tokenbucket.agent.pod_events import PodEvents
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.report import OwnReport
from tokenbucket.apiserver import probes
from tokenbucket.apiserver.client import NOT_FOUND, Client, attempt
from tokenbucket.apiserver.informers import run_until_first
from tokenbucket.apiserver.resources import NODES, PODS
from tokenbucket.bpf.load import LOAD_TIMEOUT_S
from tokenbucket.core.api.parse import READINESS_GATE
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.status.node_status import NodeState, missing_limits
from tokenbucket.errors import ApiError
from tokenbucket.pacing import Worker

log = logging.getLogger(__name__)

_COUNT_S = 3600.0
"""Interval of counting the nodes."""
_RECOUNT_S = 60.0
"""Interval after a failure."""
_SILENCE_S = LOAD_TIMEOUT_S + 80.0
"""A loop without a snapshot for this time hangs: it takes one per minute, after the program is loaded."""


class Reporter:
    """Reports each new state of the loop, from :meth:`start` to :meth:`stop`."""

    def __init__(self, source: ClusterSource, stats: ReconcileStats) -> None:
        self._source, self._stats, self._options = source, stats, source.options
        self._report = OwnReport(source, self._trigger_report)
        self._worker = Worker(self._report.pause_s)
        self._repairs = Worker(lambda: random.uniform(0.1, 1))  # noqa: S311 - no secret
        # Pods and the scheduler wait for these writes, so that they must not wait for the pace of reports.
        self._urgent = Worker(lambda: random.uniform(0.1, 0.5))  # noqa: S311 - no secret
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._applied_gates: dict[PodId, str] = {}
        self._pod_events = PodEvents()

    @property
    def reported_at_s(self) -> float | None:
        """Return the Unix time at which the API server accepted the last report."""
        return self._report.reported_at_s

    @property
    def ready(self) -> bool:
        """Return whether both probes of the kubelet succeed."""
        return not (self._liveness_error() or self._readiness_error())

    def start(self) -> None:
        """Start the reporter thread."""
        self._stats.on_change = self._trigger
        self._report.informers.start(self._source.start_delay.seconds)
        self._thread.start()

    def _trigger_report(self) -> None:
        self._worker.trigger()
        self._repairs.trigger()

    def _trigger(self) -> None:
        self._worker.trigger()
        self._urgent.trigger()

    def stop(self) -> None:
        """Stop the reporter thread."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        self._report.informers.stop()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        informers, own, options = self._source.informers, self._report.informers, self._options
        async with Client(informers.listed) as client, Client(own.listed) as reports:
            await run_until_first(
                self._worker.run(partial(self._write_report, client)),
                self._repairs.run(partial(self._repair_report, client)),
                self._urgent.run(partial(self._write_urgent, client)),
                informers.relist(client),
                own.relist(reports),
                self._write_regularly(),
                self._count_nodes(client),
                probes.serve(
                    options.probe_host,
                    options.probe_port,
                    healthy=self._liveness_error,
                    ready=self._readiness_error,
                ),
                self._stop.wait(),
            )

    def _liveness_error(self) -> str:
        silent_s = time.monotonic() - self._source.last_polled_at
        if silent_s > _SILENCE_S:
            return f"no reconcile run for {silent_s:.0f} s"
        return self._source.informers.liveness_error() or self._report.informers.liveness_error()

    def _readiness_error(self) -> str:
        if not self._stats.state:
            return "no reconcile run yet"
        return "" if self.reported_at_s else "the API server has not accepted a report yet"

    async def _write_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._report.pace.sync_period_s * random.uniform(0.8, 1))  # noqa: S311
            self._report.due = True
            self._worker.trigger()

    async def _count_nodes(self, client: Client) -> None:
        while True:
            counted = await attempt("count nodes", self._report.count_nodes(client))
            self._source.start_delay.counted(self._report.pace.nodes if counted else 0)
            interval_s = _COUNT_S if counted else _RECOUNT_S
            await asyncio.sleep(interval_s * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def _write_report(self, client: Client) -> bool:
        state = self._stats.current
        return not state or await attempt("write report", self._report.write(client, state))

    async def _repair_report(self, client: Client) -> bool:
        state = self._stats.current
        return not state or await attempt("repair report", self._report.repair(client, state))

    async def _write_urgent(self, client: Client) -> bool:
        """Write the changes for which others wait. Return whether the API server accepted all of them.

        The writes are independent: one rejected pod keeps no other pod from becoming ready.
        """
        state = self._stats.state
        if not state:
            return True
        accepted = []
        if self._options.remove_taint:
            accepted.append(await attempt("remove taint", self._remove_taint(client)))
        if self._options.readiness_gates:
            gates = self._changed_gates(client, state)
            accepted += [await attempt("set readiness gate", write) for write in gates]
        if self._options.bandwidth_annotations:
            accepted.append(await attempt("create events", self._pod_events.create(client, state)))
        return all(accepted)

    async def _remove_taint(self, client: Client) -> None:
        known = self._source.this_node
        if not known or not known.tainted:
            return
        node = await client.get(NODES, known.name)
        taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] != NOT_READY_TAINT]
        # The patch replaces the whole list, so the API server must reject it if the node has changed.
        version = {"resourceVersion": node["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "spec": {"taints": taints}}
        await client.patch(NODES.path(name=known.name), patch)
        log.info("taint removed", extra={"taint": NOT_READY_TAINT})

    def _changed_gates(self, client: Client, state: NodeState) -> Iterator[Awaitable[None]]:
        """Yield the writes of changed conditions of pods with the readiness gate."""
        waiting = [pod for pod in state.inputs.pods if pod.waits and not pod.ended]
        applied = self._applied_gates
        self._applied_gates = {pod.id: applied[pod.id] for pod in waiting if pod.id in applied}
        winners = Winners(state.inputs.policies)
        for pod in waiting:
            missing = missing_limits(state, winners, pod)
            if self._applied_gates.get(pod.id) != missing:
                yield self._set_gate(client, pod, missing)

    async def _set_gate(self, client: Client, pod: Pod, missing: str) -> None:
        """Write the condition of a pod. It is true if no limit is missing."""
        condition = {
            "type": READINESS_GATE,
            "status": "False" if missing else "True",
            "reason": "Pending" if missing else "Enforced",
            "message": missing[:1024],
            "lastTransitionTime": units.rfc3339(time.time()),
        }
        patch = {"metadata": {"uid": pod.id.uid}, "status": {"conditions": [condition]}}
        try:
            await client.patch(PODS.path(pod.id.namespace, pod.id.name, "status"), patch, merge_lists=True)
        except ApiError as error:
            if error.status != NOT_FOUND:  # the pod has been deleted in the meantime
                raise
        self._applied_gates[pod.id] = missing
