"""One agent of a fleet, in a process of its own: the real one, but for its kernel (fleet_kernel)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fleet_kernel
import kopf

from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.agent.options import AgentOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.reporter import Reporter
from tokenbucket.apiserver import client, watch
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import REPORTS, Resource
from tokenbucket.cli.output import LogFormat, set_up_logs


@dataclass(frozen=True)
class Server:
    """Where the API server is, and its authority's certificate, encoded as in a kubeconfig."""

    url: str
    authority: str


class Agent:
    """The process of an agent, as its parent sees it."""

    def __init__(self, options: AgentOptions, server: Server, token: str, log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["fleet_agents"])
        self._orders, theirs = context.Pipe()
        info = kopf.ConnectionInfo(server=server.url, ca_data=server.authority, token=token)
        self._process = context.Process(target=_run, args=(theirs, options, info, log), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, *question: object) -> None:
        """Asks; :meth:`answer` must follow."""
        self._orders.send(question)

    def answer(self) -> Any:
        """Return the answer. Raises EOFError if the process has ended."""
        return self._orders.recv()

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._process.join()


def _run(orders: Connection, options: AgentOptions, info: kopf.ConnectionInfo, log: Path) -> None:
    """Run an agent that answers questions until it is killed."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
    set_up_logs(LogFormat.JSON, "info")
    watch.find_server = client.find_server = lambda: info
    reports = _recorded_reports()
    source, slots, stats = ClusterSource(options), fleet_kernel.Slots(), ReconcileStats()
    reporter = Reporter(source, stats)
    source.start()
    reporter.start()
    threading.Thread(target=fleet_kernel.loop(source, slots, stats).run, daemon=True).start()
    answers: dict[str, Callable[..., object]] = {
        "reported": lambda: reporter.reported_at_s is not None,
        "written": lambda policy, generation: slots.written.get((policy, generation)),
        "reports": lambda since: [at_s for at_s in reports if at_s >= since],
        "relist": lambda: asyncio.run(_relist(source)),
    }
    try:
        while True:
            question, *values = orders.recv()
            orders.send(answers[question](*values))
    finally:
        os._exit(1)  # the threads of kopf would go on


def _recorded_reports() -> list[float]:
    """Return the list to which each accepted report adds its time, of the monotonic clock."""
    times: list[float] = []
    apply = Client.apply

    async def recorded(client: Client, resource: Resource, *rest: Any) -> dict[str, Any]:
        answer = await apply(client, resource, *rest)
        if resource == REPORTS:
            times.append(time.monotonic())
        return answer

    Client.apply = recorded
    return times


async def _relist(source: ClusterSource) -> None:
    """List everything again, as the informers do every few minutes."""
    async with Client(source.informers.listed) as requests:
        for watch in source.informers.watches:
            await watch.relist(requests)
