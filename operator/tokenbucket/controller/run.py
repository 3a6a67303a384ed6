"""Run the controller: after each change, compute the statuses and write the changed ones."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.apiserver import probes
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import NODES, PODS, POLICIES, REPORTS, Selection
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.controller.objects import read_agent, read_node, read_policy, read_report
from tokenbucket.controller.reconciler import StatusReconciler, Stores
from tokenbucket.errors import ApiError
from tokenbucket.pacing import Backoffs

log = logging.getLogger(__name__)

_QUIET_S = 0.3
_INTERVAL_S = 1.0
_RELIST_S = 300.0


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Options of the controller."""

    namespace: str
    agents: str
    """Label selector of the agent pods."""
    probe_host: str = ""
    """All IPv4 and IPv6 addresses by default, because the kubelet connects to the pod address."""
    probe_port: int = 10474
    report_spread_s: float = 2.0
    """Maximum delay of a report in seconds."""


class Controller:
    """Controller of the cluster. Raises UnsupportedError if there are no credentials."""

    def __init__(self, options: ControllerOptions) -> None:
        self._options = options
        self.stores = Stores(
            Store(read_policy, self._wake),
            Store(read_report, self._wake),
            Store(read_agent, self._wake),
            Store(read_node, self._wake),
        )
        self._watches: tuple[Watch, ...] = (
            Watch(Selection(POLICIES), self.stores.policies),
            Watch(Selection(REPORTS), self.stores.reports),
            Watch(Selection(NODES), self.stores.nodes),
            Watch(Selection(PODS, labels=options.agents), self.stores.agents, options.namespace),
        )
        self._rounds = StatusReconciler(self.stores, self._wake_after, options.report_spread_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._stop = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Return whether both probes of the kubelet succeed."""
        return not (self._liveness_error() or self._readiness_error())

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        for watch in self._watches:
            watch.start()
        options = self._options
        async with (
            Client(self._listed) as client,
            probes.serve(
                options.probe_host,
                options.probe_port,
                healthy=self._liveness_error,
                ready=self._readiness_error,
            ),
        ):
            log.info("started")
            tasks = [asyncio.create_task(self._work(client)), asyncio.create_task(self._relist(client))]
            await asyncio.wait(
                [*tasks, asyncio.create_task(self._stop.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for watch in self._watches:
            watch.stop()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _wake(self) -> None:
        if self._loop:
            self._loop.call_soon_threadsafe(self._news.set)

    def _wake_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._news.set)

    def _listed(self, path: str, content: Mapping[str, Any]) -> None:
        for watch in self._watches:
            watch.listed(path, content)

    def _liveness_error(self) -> str:
        dead = [str(watch) for watch in self._watches if not watch.alive]
        return f"not watching: {', '.join(dead)}" if dead else ""

    def _readiness_error(self) -> str:
        return (
            ""
            if all(watch.store.synced.is_set() for watch in self._watches)
            else "the first lists are not complete"
        )

    async def _work(self, client: Client) -> None:
        backoffs = iter(Backoffs())
        while True:
            await self._news.wait()
            await asyncio.sleep(_QUIET_S)
            self._news.clear()
            if self._readiness_error():
                continue
            try:
                await self._rounds.reconcile(client)
                backoffs = iter(Backoffs())
                await asyncio.sleep(_INTERVAL_S - _QUIET_S)
            except ApiError as error:
                log.warning("status not written", extra={"error": str(error)})
                await asyncio.sleep(next(backoffs))
                self._news.set()

    async def _relist(self, client: Client) -> None:
        due = time.monotonic() + _RELIST_S
        while True:
            await asyncio.sleep(2)
            doubtful = [watch for watch in self._watches if watch.store.doubtful]
            all_due = time.monotonic() > due
            due = time.monotonic() + _RELIST_S if all_due else due
            for watch in self._watches if all_due else doubtful:
                try:
                    await watch.relist(client)
                except ApiError as error:
                    log.warning("list failed", extra={"error": str(error)})
