"""One round of the controller: the statuses that the reports amount to, written where they differ."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenbucket.apiserver.client import CONFLICT, NOT_FOUND, Client
from tokenbucket.apiserver.resources import EVENTS, NODES, POLICIES, REPORTS
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.objects import (
    MANAGER,
    AgentPod,
    NodeObject,
    PolicyObject,
    ReportObject,
    unix_time,
)
from tokenbucket.controller.retries import RetryTracker
from tokenbucket.controller.write_throttle import WriteThrottle
from tokenbucket.core.api.parse import API_VERSION, POLICY, REPORT
from tokenbucket.core.status.agent_condition import agent_condition
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import Agents, NodeState, PolicyHead
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

_UNSEEN_S = 8.0
"""A policy that no agent has spoken of for so long after all were due selects no pod."""
_DUE_S = 2.0
"""Until so long after all were due a policy may be in force on the nodes that have spoken of it, and not on
others: times are in seconds, and requests take their time.
"""
_STARTING_S = 60.0
"""An agent's pod that is so old, and has never reported, is not just starting."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What is known of the cluster."""

    policies: Store[PolicyObject]
    reports: Store[ReportObject]
    agents: Store[AgentPod]
    nodes: Store[NodeObject]


class StatusReconciler:
    """Use :meth:`make` whenever something may have changed."""

    def __init__(self, stores: Stores, again: Callable[[float], None], report_spread_s: float = 2.0) -> None:
        """``again`` asks for another round after so many seconds. Agents tell of a change within
        ``report_spread_s``.
        """
        self._stores = stores
        self._again = again
        self._due_s = report_spread_s + _DUE_S
        self._unseen_s = report_spread_s + _UNSEEN_S
        self._pace = WriteThrottle()
        self._attempts = RetryTracker(again)
        self._written: dict[str, list[dict[str, Any]]] = {}
        """Conditions, by policy: until the watch tells of them, the next round writes them again."""

    async def make(self, client: Client) -> None:
        """One round. What is refused holds up nothing else, and asks for another round.

        Raises ApiError while the API server is away: what was not written is due in the next one.
        """
        reports = await self._current_reports(client)
        states = self._states(reports)
        concerned = _by_policy(states)
        alive = sum(state.alive for state in states)
        silent = self._silent(states)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        policies = self._stores.policies.values()
        uids = {policy.head.uid for policy in policies}
        self._pace.keep(uids)
        self._attempts.keep(uids | {report.uid for report in reports})
        self._written = {uid: each for uid, each in self._written.items() if uid in uids}
        waits: list[float] = []
        for policy in policies:
            head = policy.head
            # Until then, that it matches no pod would be a guess.
            if not concerned[head.namespace, head.name] and self._is_younger(
                policy.changed_s, self._unseen_s
            ):
                continue
            before = policy.status.get("conditions") or []
            agents = Agents(alive, tuple(name for name, last_s in silent if last_s < policy.changed_s))
            status = policy_status(head, concerned[head.namespace, head.name], before, now, agents)
            if status == policy.status or (
                _is_ready(status) and self._is_younger(policy.changed_s, self._due_s)
            ):
                continue
            wait_s = self._pace.wait_s(head.uid, len(states), time.monotonic())
            if wait_s > 0:
                waits.append(wait_s)
            else:
                await self._attempts.make(head.uid, partial(self._write, client, head, status, before))
        if waits:
            self._again(min(waits))
        await self._tell_of_agents(client, reports, now)

    def _is_younger(self, since_s: float, than_s: float) -> bool:
        """Whether something is of less than that age. There is another round when it is not any more."""
        left_s = than_s - (time.time() - since_s)
        if not 0 < left_s <= 2 * than_s:  # a clock that is so far ahead tells nothing
            return False
        self._again(left_s)
        return True

    async def _current_reports(self, client: Client) -> list[ReportObject]:
        """The reports. Those of nodes that are no more are deleted."""
        nodes = {node.name for node in self._stores.nodes.values()}
        return [
            each
            for each in self._stores.reports.values()
            if each.name in nodes
            or not await self._attempts.make(each.uid, partial(self._delete_orphan, client, each.name))
        ]

    def _states(self, reports: Iterable[ReportObject]) -> list[NodeState]:
        """Each with whether its agent lives."""
        alive = {agent.node for agent in self._stores.agents.values() if agent.ready}
        return [NodeState(each.name, each.report, each.name in alive, each.written) for each in reports]

    def _silent(self, states: Iterable[NodeState]) -> list[tuple[str, float]]:
        """Nodes that work without a live agent, and when each one's agent last wrote, in Unix time; 0 for
        never.

        On a node that is down nobody waits for a limit.
        """
        ready = {node.name for node in self._stores.nodes.values() if node.ready}
        spoke = {state.name: None if state.alive else unix_time(state.since) for state in states}
        agents = self._stores.agents.values()
        starting = {agent.node for agent in agents if self._is_younger(agent.created_s, _STARTING_S)}
        for node in {agent.node for agent in agents}:
            spoke.setdefault(node, None if node in starting else 0.0)
        return [
            (name, last_s) for name, last_s in sorted(spoke.items()) if name in ready and last_s is not None
        ]

    async def _tell_of_agents(self, client: Client, reports: Iterable[ReportObject], now: str) -> None:
        """Writes into each report whether its agent is ready, where it says otherwise."""
        pods: dict[str, dict[str, bool]] = defaultdict(dict)
        for agent in self._stores.agents.values():
            pods[agent.node][agent.name] = agent.ready
        for report in reports:
            conditions = [agent_condition(pods[report.name], report.conditions, now)]
            if conditions != list(report.conditions):
                metadata = {"name": report.name, "uid": report.uid}
                document = {"kind": REPORT, "metadata": metadata, "status": {"conditions": conditions}}
                await self._attempts.make(report.uid, partial(_add, client, document))

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
            self._pace.wrote(head.uid, time.monotonic())
            known = [*before, *self._written.get(head.uid, ())]
            self._written[head.uid] = status["conditions"]
            for condition in _news(status["conditions"], known):
                await _tell(client, head, condition)


@contextlib.contextmanager
def _suppress_gone() -> Iterator[None]:
    """The object has gone, or is another of that name, meanwhile: fine."""
    try:
        yield
    except ApiError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise


async def _add(client: Client, document: Mapping[str, Any]) -> None:
    """To a report: what its agent says stays."""
    with _suppress_gone():
        await client.apply(REPORTS, {"apiVersion": API_VERSION, **document}, MANAGER)


async def _tell(client: Client, head: PolicyHead, condition: Mapping[str, Any]) -> None:
    """Makes an event. One that is refused is not tried again: what it says is in the status already."""
    try:
        await client.create(EVENTS, head.namespace, _event(head, condition))
    except ApiError as error:
        if not error.status:
            raise
        log.warning("event refused", extra={"policy": f"{head.namespace}/{head.name}", "error": str(error)})


def _by_policy(states: list[NodeState]) -> dict[tuple[str, str], list[NodeState]]:
    found: dict[tuple[str, str], list[NodeState]] = defaultdict(list)
    for state in states:
        for policy in state.report.policies:
            found[policy.namespace, policy.name].append(state)
    return found


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status["conditions"])


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
