"""Write the state of the node to the API server, in a thread of its own: a slow answer delays no limit.

The agent writes its own TokenBucketNode and, if it is allowed to, the condition of pods with the readiness
gate and the taint of its own node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Iterator
from functools import partial
from typing import Any

from tokenbucket import __version__
from tokenbucket.agent.cluster import NOT_READY_TAINT, ClusterSource
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.apiserver import probes
from tokenbucket.apiserver.client import NOT_FOUND, Client, attempt
from tokenbucket.apiserver.informers import relist_interval_s, run_until_first
from tokenbucket.apiserver.resources import NODES, PODS, REPORTS
from tokenbucket.bpf.load import LOAD_TIMEOUT_S
from tokenbucket.core.api.node_report import AgentInfo, NodeReport, to_document
from tokenbucket.core.api.parse import API_VERSION, READINESS_GATE, REPORT
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.status.node_status import (
    NodeState,
    missing_limits,
    pods_not_programmed,
    policy_reports,
)
from tokenbucket.errors import ApiError
from tokenbucket.pacing import Worker

log = logging.getLogger(__name__)

MANAGER = "tokenbucket-agent"
_POLICIES, _PODS = 2048, 64
"""Maximum numbers of items in a report, as in its schema."""
_SILENCE_S = LOAD_TIMEOUT_S + 80.0
"""A loop without a snapshot for this time hangs: it takes one per minute, after the program is loaded."""


class Reporter:
    """Reports each new state of the loop, from :meth:`start` to :meth:`stop`."""

    def __init__(self, source: ClusterSource, stats: ReconcileStats) -> None:
        self._source, self._stats, self._options = source, stats, source.options
        self._worker = Worker(lambda: random.uniform(0.1, 0.5) * self._options.report_spread_s)  # noqa: S311
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._applied_report: dict[str, Any] | None = None
        self._applied_gates: dict[PodId, str] = {}
        self.reported_at_s: float | None = None
        """Unix time at which the API server was last known to have the current report."""

    @property
    def ready(self) -> bool:
        """Return whether both probes of the kubelet succeed."""
        return not (self._liveness_error() or self._readiness_error())

    def start(self) -> None:
        """Start the reporter thread."""
        self._stats.on_change = self._worker.trigger
        self._thread.start()

    def stop(self) -> None:
        """Stop the reporter thread."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        informers, options = self._source.informers, self._options
        async with Client(informers.listed) as client:
            await run_until_first(
                self._worker.run(partial(self._write_changes, client)),
                informers.relist(client),
                self._check_report(client),
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
        return self._source.informers.liveness_error()

    def _readiness_error(self) -> str:
        if not self._stats.state:
            return "no reconcile run yet"
        return "" if self.reported_at_s else "the API server has not accepted a report yet"

    async def _check_report(self, client: Client) -> None:
        """Write the report again if it was deleted."""
        while True:
            await asyncio.sleep(relist_interval_s())
            await attempt("read report", self._forget_deleted_report(client))

    async def _forget_deleted_report(self, client: Client) -> None:
        if not await self._find_report(client):
            self._applied_report = None
            self._worker.trigger()

    async def _find_report(self, client: Client) -> dict[str, Any] | None:
        try:
            return await client.get(REPORTS, self._options.node)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    async def _write_changes(self, client: Client) -> bool:
        """Write the changes since the last run. Return whether the API server accepted all of them.

        The writes are independent: a rejected report keeps no pod and no node from becoming ready.
        """
        state = self._stats.state
        if not state:
            return True
        accepted = [await attempt("write report", self._report(client, state))]
        if self._options.remove_taint:
            accepted.append(await attempt("remove taint", self._remove_taint(client)))
        if self._options.readiness_gates:
            gates = self._changed_gates(client, state)
            accepted += [await attempt("set readiness gate", write) for write in gates]
        return all(accepted)

    async def _report(self, client: Client, state: NodeState) -> None:
        document = self._document(state)
        if document != self._applied_report:
            await self._apply(client, document)
            self._applied_report = document
        self.reported_at_s = time.time()

    async def _apply(self, client: Client, document: dict[str, Any]) -> None:
        """Apply the report. Skip it if the node is clean and its report was deleted: a cleanup deletes it."""
        if document["status"]["clean"]:
            known = await self._find_report(client)
            if not known:
                return
            document = {**document, "metadata": {**document["metadata"], "uid": known["metadata"]["uid"]}}
        await client.apply(REPORTS, document, MANAGER)

    def _document(self, state: NodeState) -> dict[str, Any]:
        inputs, outcome = state.inputs, state.outcome
        pods = sorted(pods_not_programmed(state), key=str)
        report = NodeReport(
            agent=AgentInfo(__version__, self._options.pod, self._options.release),
            kernel=os.uname().release,
            fq=outcome.fq,
            enforcement=inputs.enforcement.value,
            problem=inputs.problem,
            clean=inputs.cleanup,
            limits=len(outcome.active),
            policies=policy_reports(state)[:_POLICIES],
            pods=tuple(pods[:_PODS]),
            pods_omitted=max(0, len(pods) - _PODS),
        )
        metadata: dict[str, Any] = {"name": self._options.node}
        node = self._source.this_node
        if node:
            owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
            metadata["ownerReferences"] = [owner]
        return {
            "apiVersion": API_VERSION,
            "kind": REPORT,
            "metadata": metadata,
            "status": to_document(report),
        }

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
            "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        patch = {"metadata": {"uid": pod.id.uid}, "status": {"conditions": [condition]}}
        try:
            await client.patch(PODS.path(pod.id.namespace, pod.id.name, "status"), patch, merge_lists=True)
        except ApiError as error:
            if error.status != NOT_FOUND:  # the pod has been deleted in the meantime
                raise
        self._applied_gates[pod.id] = missing
