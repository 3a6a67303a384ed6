"""The controller's loop: whatever changes, sum the reports again, and write the statuses that differ."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.controller.objects import (
    MANAGER,
    AgentPod,
    NodeObject,
    PolicyObject,
    ReportObject,
    read_agent,
    read_node,
    read_policy,
    read_report,
    unix_time,
)
from tokenbucket.controller.pace import Pace
from tokenbucket.core.agent_condition import agent_condition
from tokenbucket.core.parse import API_VERSION, POLICY, REPORT
from tokenbucket.core.status import policy_status
from tokenbucket.core.summary import Agents, NodeState, PolicyHead
from tokenbucket.errors import ApiError
from tokenbucket.kubernetes import probes
from tokenbucket.kubernetes.client import CONFLICT, NOT_FOUND, Client
from tokenbucket.kubernetes.resources import EVENTS, NODES, PODS, POLICIES, REPORTS, Selection
from tokenbucket.kubernetes.store import Store
from tokenbucket.kubernetes.watch import Backoffs, Watch

log = logging.getLogger(__name__)

_QUIET_S = 0.3
_INTERVAL_S = 1.0
_RELIST_S = 300.0
_UNSEEN_S = 10.0


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Where it finds its agents, and where it is asked how it is."""

    namespace: str
    agents: str
    """Label selector of the agents' pods."""
    probe_host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks the pod's own address
    probe_port: int = 10474


class Controller:
    """Use :meth:`run`. Raises UnsupportedError when there are no credentials."""

    def __init__(self, options: ControllerOptions) -> None:
        self._options = options
        self.policies: Store[PolicyObject] = Store(read_policy, self._wake)
        self._reports: Store[ReportObject] = Store(read_report, self._wake)
        self.agents: Store[AgentPod] = Store(read_agent, self._wake)
        self._nodes: Store[NodeObject] = Store(read_node, self._wake)
        agents = Selection(PODS, labels=options.agents)
        self._watches: tuple[Watch, ...] = (
            Watch(Selection(POLICIES), self.policies),
            Watch(Selection(REPORTS), self._reports),
            Watch(Selection(NODES), self._nodes),
            Watch(agents, self.agents, options.namespace),
        )
        self._pace = Pace()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._stop = asyncio.Event()

    @property
    def ready(self) -> bool:
        """As the kubelet's probes are told."""
        return not (self._sick() or self._unready())

    async def run(self) -> None:
        """Runs until a signal asks for the end."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        for watch in self._watches:
            watch.start()
        options = self._options
        async with (
            Client(self._listed) as client,
            probes.serve(options.probe_host, options.probe_port, healthy=self._sick, ready=self._unready),
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

    def _listed(self, path: str, content: Mapping[str, Any]) -> None:
        for watch in self._watches:
            watch.listed(path, content)

    def _sick(self) -> str:
        dead = [str(watch) for watch in self._watches if not watch.alive]
        return f"not watching: {', '.join(dead)}" if dead else ""

    def _unready(self) -> str:
        return (
            ""
            if all(watch.store.synced.is_set() for watch in self._watches)
            else "not everything is listed yet"
        )

    async def _work(self, client: Client) -> None:
        backoffs = iter(Backoffs())
        while True:
            await self._news.wait()
            await asyncio.sleep(_QUIET_S)
            self._news.clear()
            if self._unready():
                continue
            try:
                await self._round(client)
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

    async def _round(self, client: Client) -> None:
        reports = await self._current_reports(client)
        states = self._states(reports)
        concerned = _by_policy(states)
        alive = sum(state.alive for state in states)
        silent = self._silent(states)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        policies = self.policies.values()
        self._pace.keep({policy.head.uid for policy in policies})
        waits: list[float] = []
        for policy in policies:
            head = policy.head
            if not concerned[head.namespace, head.name] and self._may_be_unseen(policy):
                continue
            before = policy.status.get("conditions") or []
            agents = Agents(alive, tuple(name for name, last_s in silent if last_s < policy.changed_s))
            status = policy_status(head, concerned[head.namespace, head.name], before, now, agents)
            if status == policy.status:
                continue
            wait_s = self._pace.wait_s(head.uid, len(states), time.monotonic())
            if wait_s > 0:
                waits.append(wait_s)
            else:
                await self._write(client, head, status, before)
                self._pace.wrote(head.uid, time.monotonic())
        if waits and self._loop:
            self._loop.call_later(min(waits), self._news.set)
        await self._tell_of_agents(client, reports, now)

    def _may_be_unseen(self, policy: PolicyObject) -> bool:
        """Whether no agent has spoken of a policy that is so new that they may not have had the time to.
        Until then, that it matches no pod would be a guess.
        """
        age_s = time.time() - policy.changed_s
        if age_s >= _UNSEEN_S or self._loop is None:
            return False
        self._loop.call_later(_UNSEEN_S - age_s, self._news.set)
        return True

    async def _current_reports(self, client: Client) -> list[ReportObject]:
        """The reports. Those of nodes that are no more are deleted."""
        nodes = {node.name for node in self._nodes.values()}
        return [
            each
            for each in self._reports.values()
            if each.name in nodes or not await self._delete_orphan(client, each.name)
        ]

    def _states(self, reports: Iterable[ReportObject]) -> list[NodeState]:
        """Each with whether its agent lives."""
        alive = {agent.node for agent in self.agents.values() if agent.ready}
        return [NodeState(each.name, each.report, each.name in alive, each.written) for each in reports]

    def _silent(self, states: Iterable[NodeState]) -> list[tuple[str, float]]:
        """Nodes that work without a live agent, and when each one's agent last wrote, in Unix time.

        On a node that is down nobody waits for a limit.
        """
        ready = {node.name for node in self._nodes.values() if node.ready}
        dead = sorted((state for state in states if not state.alive), key=lambda state: state.name)
        return [(state.name, unix_time(state.since)) for state in dead if state.name in ready]

    async def _tell_of_agents(self, client: Client, reports: Iterable[ReportObject], now: str) -> None:
        """Writes into each report whether its agent is ready, where it says otherwise."""
        pods: dict[str, dict[str, bool]] = defaultdict(dict)
        for agent in self.agents.values():
            pods[agent.node][agent.name] = agent.ready
        for report in reports:
            conditions = [agent_condition(pods[report.name], report.conditions, now)]
            if conditions != list(report.conditions):
                metadata = {"name": report.name, "uid": report.uid}
                document = {"kind": REPORT, "metadata": metadata, "status": {"conditions": conditions}}
                with _suppress_gone():
                    await client.apply(REPORTS, {"apiVersion": API_VERSION, **document}, MANAGER)

    async def _delete_orphan(self, client: Client, name: str) -> bool:
        try:
            await client.get(NODES, name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            await client.delete(REPORTS, name)
            log.info("report of a deleted node deleted", extra={"node": name})
            return True
        return False

    async def _write(
        self, client: Client, head: PolicyHead, status: dict[str, Any], before: list[dict[str, Any]]
    ) -> None:
        metadata = {"namespace": head.namespace, "name": head.name, "uid": head.uid}
        document = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": metadata, "status": status}
        with _suppress_gone():
            await client.apply(POLICIES, document, MANAGER, "status")
            for condition in _news(status["conditions"], before):
                await client.create(EVENTS, head.namespace, _event(head, condition))


@contextlib.contextmanager
def _suppress_gone() -> Iterator[None]:
    """The object has gone, or is another of that name, meanwhile: fine."""
    try:
        yield
    except ApiError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise


def _by_policy(states: list[NodeState]) -> dict[tuple[str, str], list[NodeState]]:
    found: dict[tuple[str, str], list[NodeState]] = defaultdict(list)
    for state in states:
        for policy in state.report.policies:
            found[policy.namespace, policy.name].append(state)
    return found


def _news(after: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Conditions that became bad, for another reason than before: worth an event."""
    known = {(each.get("type"), each.get("reason")) for each in before}
    bad = {"Accepted": "False", "Degraded": "True"}
    return [
        each
        for each in after
        if each["status"] == bad.get(each["type"]) and (each["type"], each["reason"]) not in known
    ]


def _event(head: PolicyHead, condition: Mapping[str, Any]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"apiVersion": API_VERSION, "kind": POLICY, "namespace": head.namespace, "name": head.name}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": head.namespace, "generateName": f"{head.name[:230]}."},
        "involvedObject": {**about, "uid": head.uid},
        "type": "Warning",
        "reason": condition["reason"],
        "message": condition["message"][:1024],
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
