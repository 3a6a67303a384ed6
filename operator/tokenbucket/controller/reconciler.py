"""Compute the status of each policy from the reports, and write the changed ones."""

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
from tokenbucket.core.api.parse import API_VERSION, POLICY, REPORT
from tokenbucket.core.status.node_status import agent_condition
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import Agents, NodeState, PolicyHead
from tokenbucket.errors import ApiError
from tokenbucket.pacing import RetryTracker, WriteThrottle

log = logging.getLogger(__name__)

_UNSEEN_S = 8.0
"""Grace period after the reports are due. A policy that no agent reports until then selects no pod."""
_DUE_S = 2.0
"""Grace period for slow reports. A policy becomes Ready only afterwards, because nodes may lag behind."""
_STARTING_S = 60.0
"""Time that an agent pod has for its first report."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of all watched objects."""

    policies: Store[PolicyObject]
    reports: Store[ReportObject]
    agents: Store[AgentPod]
    nodes: Store[NodeObject]


class StatusReconciler:
    """Write the statuses of policies. Call :meth:`reconcile` after each change."""

    def __init__(self, stores: Stores, again: Callable[[float], None], report_spread_s: float = 2.0) -> None:
        """Create a reconciler. ``again`` requests a reconcile run after a number of seconds.

        Agents report a change within ``report_spread_s``.
        """
        self._stores = stores
        self._again = again
        self._due_s = report_spread_s + _DUE_S
        self._unseen_s = report_spread_s + _UNSEEN_S
        self._throttle = WriteThrottle()
        self._retries = RetryTracker(again)
        self._written: dict[str, list[dict[str, Any]]] = {}
        """Written conditions by policy, until the watch delivers them."""

    async def reconcile(self, client: Client) -> None:
        """Run once. A rejected write does not block other writes, and is retried.

        Raises ApiError if the API server is unavailable. The next run writes the missing statuses.
        """
        reports = await self._current_reports(client)
        states = self._states(reports)
        concerned = _by_policy(states)
        alive = sum(state.alive for state in states)
        silent = self._silent(states)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        policies = self._stores.policies.values()
        uids = {policy.head.uid for policy in policies}
        self._throttle.retain(uids)
        self._retries.retain(uids | {report.uid for report in reports})
        self._written = {uid: each for uid, each in self._written.items() if uid in uids}
        waits: list[float] = []
        for policy in policies:
            head = policy.head
            # Before that time it is unknown whether the policy selects no pod.
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
            wait_s = self._throttle.wait_s(head.uid, len(states), time.monotonic())
            if wait_s > 0:
                waits.append(wait_s)
            else:
                await self._retries.run(head.uid, partial(self._write, client, head, status, before))
        if waits:
            self._again(min(waits))
        await self._tell_of_agents(client, reports, now)

    def _is_younger(self, since_s: float, than_s: float) -> bool:
        """Return whether an age is below a limit. Request a reconcile run for the time at which it is not."""
        left_s = than_s - (time.time() - since_s)
        if not 0 < left_s <= 2 * than_s:  # the clock of the writer is too far ahead
            return False
        self._again(left_s)
        return True

    async def _current_reports(self, client: Client) -> list[ReportObject]:
        """Return the reports. Delete the reports of deleted nodes."""
        nodes = {node.name for node in self._stores.nodes.values()}
        return [
            each
            for each in self._stores.reports.values()
            if each.name in nodes
            or not await self._retries.run(each.uid, partial(self._delete_orphan, client, each.name))
        ]

    def _states(self, reports: Iterable[ReportObject]) -> list[NodeState]:
        """Return each report with the readiness of its agent."""
        alive = {agent.node for agent in self._stores.agents.values() if agent.ready}
        return [NodeState(each.name, each.report, each.name in alive, each.written) for each in reports]

    def _silent(self, states: Iterable[NodeState]) -> list[tuple[str, float]]:
        """Return the ready nodes without a ready agent, and the Unix time of their last report (0: never).

        Ignore nodes that are not ready, because no pod starts there.
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
        """Write the changed AgentReady conditions of the reports."""
        pods: dict[str, dict[str, bool]] = defaultdict(dict)
        for agent in self._stores.agents.values():
            pods[agent.node][agent.name] = agent.ready
        for report in reports:
            conditions = [agent_condition(pods[report.name], report.conditions, now)]
            if conditions != list(report.conditions):
                metadata = {"name": report.name, "uid": report.uid}
                document = {"kind": REPORT, "metadata": metadata, "status": {"conditions": conditions}}
                await self._retries.run(report.uid, partial(_add, client, document))

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
            self._throttle.record(head.uid, time.monotonic())
            known = [*before, *self._written.get(head.uid, ())]
            self._written[head.uid] = status["conditions"]
            for condition in _news(status["conditions"], known):
                await _tell(client, head, condition)


@contextlib.contextmanager
def _suppress_gone() -> Iterator[None]:
    """Ignore errors of objects that were deleted or replaced in the meantime."""
    try:
        yield
    except ApiError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise


async def _add(client: Client, document: Mapping[str, Any]) -> None:
    """Apply fields to a report. The fields of its agent stay."""
    with _suppress_gone():
        await client.apply(REPORTS, {"apiVersion": API_VERSION, **document}, MANAGER)


async def _tell(client: Client, head: PolicyHead, condition: Mapping[str, Any]) -> None:
    """Create an event. A rejected event is not retried, because the status has the same message."""
    try:
        await client.create(EVENTS, head.namespace, _event(head, condition))
    except ApiError as error:
        if not error.status:
            raise
        log.warning("event rejected", extra={"policy": f"{head.namespace}/{head.name}", "error": str(error)})


def _by_policy(states: list[NodeState]) -> dict[tuple[str, str], list[NodeState]]:
    found: dict[tuple[str, str], list[NodeState]] = defaultdict(list)
    for state in states:
        for policy in state.report.policies:
            found[policy.namespace, policy.name].append(state)
    return found


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status["conditions"])


def _news(after: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the conditions that became bad with a new reason, to report as events."""
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
