"""Run the controller: after each change, compute the statuses and write the changed ones."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tokenbucket.apiserver import probes
from tokenbucket.apiserver.bounded_http import serve
from tokenbucket.apiserver.client import Client, attempt
from tokenbucket.apiserver.connection import answers
from tokenbucket.apiserver.informers import Informers, run_until_first
from tokenbucket.apiserver.lease import Election
from tokenbucket.apiserver.resources import NODES, PODS, POLICIES, REPORTS, Selection
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.objects import Stores, read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler
from tokenbucket.controller.relay import Relay
from tokenbucket.pacing import Worker

log = logging.getLogger(__name__)

_QUIET_S = 0.3
_INTERVAL_S = 1.0
_PAGE = 50
"""Number of objects that are in memory as documents at once: of a node with 100 policies, 0.3 MiB."""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Options of the controller."""

    namespace: str
    pod: str
    """Name of the controller's pod. Distinguishes the replicas."""
    agents: str
    """Label selector of the agent pods."""
    probe_host: str = ""
    """All IPv4 and IPv6 addresses by default, because the kubelet connects to the pod address."""
    probe_port: int = 10474
    live: tuple[str, int] | None = None
    """Address of the relay for live figures, if there is one."""
    agent_live_port: int = 10477
    protected: frozenset[str] = frozenset()
    """Namespaces in which a policy needs a label."""


class Controller:
    """Controller of the cluster. Raises UnsupportedError if there are no credentials."""

    def __init__(self, options: ControllerOptions) -> None:
        self._options = options
        self._worker = Worker(lambda: _QUIET_S)
        self.stores = Stores(
            Store(partial(read_policy, protected=options.protected), self._worker.trigger),
            Store(read_report, self._worker.trigger),
            Store(read_agent, self._worker.trigger),
            Store(read_node, self._worker.trigger),
        )
        self._informers = Informers(
            Watch(Selection(POLICIES), self.stores.policies),
            Watch(Selection(REPORTS), self.stores.reports, page=_PAGE, rewritten=True),
            Watch(Selection(NODES), self.stores.nodes, page=_PAGE),
            Watch(Selection(PODS, labels=options.agents), self.stores.agents, options.namespace, _PAGE),
        )
        self._reconciler = StatusReconciler(
            self.stores,
            self._worker.trigger_after,
            Heartbeats(lambda: answers.outage),
            lambda: self.leads,
        )
        self._election = Election(f"{options.namespace}/{options.pod}", self._worker.trigger)
        self._stop = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Return whether this replica writes the statuses."""
        return self._election.leads

    @property
    def api_requests(self) -> Mapping[tuple[str, int], int]:
        """Return the numbers of requests by method and status. Status 0 means no response."""
        return answers.counts()

    @property
    def ready(self) -> bool:
        """Return whether both probes of the kubelet succeed."""
        return not (self._informers.liveness_error() or self._readiness_error())

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        loop, options, informers = asyncio.get_running_loop(), self._options, self._informers
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        informers.start()
        log.info("started")
        try:
            async with Client(informers.listed) as client:
                await run_until_first(
                    self._election.run(client),
                    self._worker.run(partial(self._reconcile, client)),
                    informers.relist(client),
                    probes.serve(
                        options.probe_host,
                        options.probe_port,
                        healthy=informers.liveness_error,
                        ready=self._readiness_error,
                    ),
                    self._serve_live(),
                    self._stop.wait(),
                )
                await attempt("release lease", self._election.release(client))
        finally:
            informers.stop()

    async def _serve_live(self) -> None:
        """Relay requests for live figures, if that is enabled, whether this replica leads or not."""
        if not self._options.live:
            await self._stop.wait()
            return
        host, port = self._options.live
        async with Relay(self.stores.agents, self._options.agent_live_port) as relay:
            await serve(relay.application(), host, port, "live figures")

    def _readiness_error(self) -> str:
        if not self._informers.synced:
            return "the first lists are not complete"
        return "" if self._election.holder else "no replica has the lease; check the role of the controller"

    async def _reconcile(self, client: Client) -> bool:
        """Write the changed statuses. Return whether the API server was available."""
        if self._informers.synced and self.leads:
            if not await attempt("write status", self._reconciler.reconcile(client)):
                return False
            await asyncio.sleep(_INTERVAL_S - _QUIET_S)
        return True
