"""What the agent tells the API server, in a thread of its own so that a slow answer holds up no limit.

It writes its own TokenBucketNode, and where that is allowed the readiness-gate condition of pods that ask for
it and the taint of its own node. It also lists everything anew now and then, which heals whatever a watch has
missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

from tokenbucket import __version__
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.agent.objects import NOT_READY_TAINT
from tokenbucket.apiserver import probes
from tokenbucket.apiserver.client import NOT_FOUND, Client
from tokenbucket.apiserver.resources import NODES, PODS, REPORTS
from tokenbucket.bpf.load import LOAD_TIMEOUT_S
from tokenbucket.core.api.node_report import NodeReport, to_document
from tokenbucket.core.api.parse import API_VERSION, READINESS_GATE, REPORT
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.status.node_status import Situation, missing_limits, pods_not_programmed, tally
from tokenbucket.errors import ApiError
from tokenbucket.pacing import Backoffs

log = logging.getLogger(__name__)

MANAGER = "tokenbucket-agent"
_RELIST_S = 300.0
_DOUBT_S = 2.0
_POLICIES, _PODS = 2048, 64
"""What the schema lets a report hold."""
_SILENCE_S = LOAD_TIMEOUT_S + 80.0
"""A loop that asks nothing for so long hangs: it makes a pass each minute, after the program is loaded."""


class Reporter:
    """Tells what :class:`ClusterSource` knows, from :meth:`start` to :meth:`stop`."""

    def __init__(self, source: ClusterSource) -> None:
        self._source = source
        self._options = source.options
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        self._stop: asyncio.Event | None = None
        self._told: dict[str, Any] | None = None
        self._gates: dict[PodId, str] = {}
        self.reported_at_s: float | None = None
        """When the API server was last known to have what is the case, in Unix time."""

    @property
    def ready(self) -> bool:
        """As the kubelet's probes are told."""
        return not (self._sick() or self._unready())

    def start(self) -> None:
        """Begins."""
        self._source.told = self._notify
        self._thread.start()

    def stop(self) -> None:
        """Stop the reporter thread."""
        if self._loop and self._stop:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def _notify(self) -> None:
        if self._loop and self._news:
            with contextlib.suppress(RuntimeError):  # it has ended, which the kubelet's probes notice
                self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._news, self._stop = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with Client(self._listed) as client:
            work = [self._report_changes(client), self._relist_now_and_then(client), self._answer_probes()]
            tasks = [asyncio.create_task(each) for each in (*work, self._stop.wait())]
            ended, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for task in ended:
                task.result()

    async def _answer_probes(self) -> None:
        """For as long as it runs. An address that is taken is tried again: limits do not depend on it."""
        options = self._options
        for wait_s in Backoffs():
            try:
                async with probes.serve(
                    options.probe_host, options.probe_port, healthy=self._sick, ready=self._unready
                ):
                    await asyncio.Event().wait()
            except OSError as error:
                log.warning("probes not answered", extra={"error": str(error)})
            await asyncio.sleep(wait_s)

    def _sick(self) -> str:
        silent = time.monotonic() - self._source.asked_at
        if silent > _SILENCE_S:
            return f"no pass for {silent:.0f} s"
        dead = [str(watch) for watch in self._source.watches if not watch.alive]
        return f"not watching: {', '.join(dead)}" if dead else ""

    def _unready(self) -> str:
        if not self._source.situation:
            return "no pass yet"
        return "" if self.reported_at_s else "no report taken by the API server yet"

    def _listed(self, path: str, content: Mapping[str, Any]) -> None:
        for watch in self._source.watches:
            watch.listed(path, content)

    async def _relist_now_and_then(self, client: Client) -> None:
        due = time.monotonic() + _RELIST_S * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        while True:
            await asyncio.sleep(_DOUBT_S)
            doubtful = [watch for watch in self._source.watches if watch.store.doubtful]
            if doubtful or time.monotonic() > due:
                for watch in doubtful or self._source.watches:
                    await _attempt("list", watch.relist(client))
            if time.monotonic() > due:
                await _attempt("look for report", self._look_for_report(client))
                due = time.monotonic() + _RELIST_S * random.uniform(0.5, 1.5)  # noqa: S311 - no secret

    async def _look_for_report(self, client: Client) -> None:
        if not await self._find_report(client):
            self._told = None
            self._notify()

    async def _find_report(self, client: Client) -> dict[str, Any] | None:
        try:
            return await client.get(REPORTS, self._options.node)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    async def _report_changes(self, client: Client) -> None:
        assert self._news  # noqa: S101 - made before this task
        backoffs = iter(Backoffs())
        while True:
            await self._news.wait()
            await asyncio.sleep(random.uniform(0.1, 0.5) * self._options.report_spread_s)  # noqa: S311
            self._news.clear()
            situation = self._source.situation
            if not situation:
                continue
            # Each by itself: what one of them is refused keeps no pod and no node from getting ready.
            told = [await _attempt("report", self._report(client, situation))]
            if self._options.remove_taint:
                told.append(await _attempt("remove taint", self._remove_taint(client)))
            if self._options.readiness_gates:
                told += [await _attempt("tell pod", each) for each in self._open_gates(client, situation)]
            if all(told):
                backoffs = iter(Backoffs())
            else:
                await asyncio.sleep(next(backoffs))
                self._news.set()

    async def _report(self, client: Client, situation: Situation) -> None:
        document = self._document(situation)
        if document != self._told:
            await self._write(client, document)
            self._told = document
        self.reported_at_s = time.time()

    async def _write(self, client: Client, document: dict[str, Any]) -> None:
        """Apply the report. Skip it if the node is clean and its report was deleted: a cleanup deletes it."""
        if document["status"]["clean"]:
            known = await self._find_report(client)
            if not known:
                return
            document = {**document, "metadata": {**document["metadata"], "uid": known["metadata"]["uid"]}}
        await client.apply(REPORTS, document, MANAGER)

    def _document(self, situation: Situation) -> dict[str, Any]:
        pods = sorted(pods_not_programmed(situation), key=str)
        report = NodeReport(
            agent_version=__version__,
            agent_pod=self._options.pod,
            kernel=os.uname().release,
            fq=situation.fq,
            enforcement=situation.enforcement.value,
            problem=situation.problem,
            clean=self._source.clean,
            limits=len(situation.in_force),
            policies=tally(situation)[:_POLICIES],
            pods=tuple(pods[:_PODS]),
            pods_omitted=max(0, len(pods) - _PODS),
        )
        node = self._source.node.get("", self._options.node)
        metadata: dict[str, Any] = {"name": self._options.node}
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
        known = self._source.node.get("", self._options.node)
        if not known or not known.tainted:
            return
        node = await client.get(NODES, known.name)
        taints = [each for each in node["spec"].get("taints") or () if each["key"] != NOT_READY_TAINT]
        # The list is replaced as a whole, so only if it still is what it was.
        version = {"resourceVersion": node["metadata"]["resourceVersion"]}
        await client.merge(NODES, known.name, None, {"metadata": version, "spec": {"taints": taints}})
        log.info("taint removed", extra={"taint": NOT_READY_TAINT})

    def _open_gates(self, client: Client, situation: Situation) -> Iterator[Awaitable[None]]:
        """Yield the writes that open readiness gates of pods."""
        waiting = [pod for pod in situation.pods if pod.waits and not pod.ended]
        self._gates = {pod.id: self._gates[pod.id] for pod in waiting if pod.id in self._gates}
        winners = Winners(situation.policies)
        for pod in waiting:
            missing = missing_limits(situation, winners, pod)
            if self._gates.get(pod.id) != missing:
                yield self._tell(client, pod, missing)

    async def _tell(self, client: Client, pod: Pod, missing: str) -> None:
        await _tell_pod(client, pod, missing)
        self._gates[pod.id] = missing


async def _tell_pod(client: Client, pod: Pod, missing: str) -> None:
    condition = {
        "type": READINESS_GATE,
        "status": "False" if missing else "True",
        "reason": "Pending" if missing else "Enforced",
        "message": missing[:1024],
        "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    patch = {"metadata": {"uid": pod.id.uid}, "status": {"conditions": [condition]}}
    try:
        await client.strategic_merge(PODS, pod.id.name, pod.id.namespace, patch, "status")
    except ApiError as error:
        if error.status != NOT_FOUND:  # it has gone meanwhile
            raise


async def _attempt(what: str, action: Awaitable[None]) -> bool:
    """Whether it worked; limits do not depend on it."""
    try:
        await action
    except ApiError as error:
        log.warning("%s failed", what, extra={"error": str(error)})
        return False
    return True
