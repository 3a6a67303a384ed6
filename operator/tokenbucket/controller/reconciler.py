"""Compute the status of each policy from the reports, and write the changed ones."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tokenbucket.apiserver.client import CONFLICT, NOT_FOUND, Client
from tokenbucket.apiserver.resources import EVENTS, NODES, POLICIES, REPORTS, is_ready
from tokenbucket.apiserver.store import Store
from tokenbucket.controller.objects import (
    MANAGER,
    AgentPod,
    NodeObject,
    PolicyObject,
    unix_time,
)
from tokenbucket.core.api.parse import API_VERSION, POLICY, REPORT
from tokenbucket.core.status.node_status import agent_condition
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import Agents, PolicyHead, ReportedNode
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
    reports: Store[ReportedNode]
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
        reports = await self._reported_nodes(client)
        concerned = _by_policy(reports)
        alive = sum(report.alive for report in reports)
        silent = self._silent(reports)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        policies = self._stores.policies.values()
        uids = {policy.head.uid for policy in policies}
        self._throttle.retain(uids)
        self._retries.retain(uids | {report.uid for report in reports})
        self._written = {uid: written for uid, written in self._written.items() if uid in uids}
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
                is_ready({"status": status}) and self._is_younger(policy.changed_s, self._due_s)
            ):
                continue
            wait_s = self._throttle.wait_s(head.uid, len(reports), time.monotonic())
            if wait_s > 0:
                waits.append(wait_s)
            else:
                await self._retries.run(head.uid, partial(self._write, client, head, status, before))
        if waits:
            self._again(min(waits))
        await self._write_agent_conditions(client, reports, now)

    def _is_younger(self, since_s: float, than_s: float) -> bool:
        """Return whether an age is below a limit. Request a reconcile run for the time at which it is not."""
        left_s = than_s - (time.time() - since_s)
        if not 0 < left_s <= 2 * than_s:  # the clock of the writer is too far ahead
            return False
        self._again(left_s)
        return True

    async def _reported_nodes(self, client: Client) -> list[ReportedNode]:
        """Return each report with the readiness of its agent. Delete the reports of deleted nodes."""
        nodes = {node.name for node in self._stores.nodes.values()}
        alive = {agent.node for agent in self._stores.agents.values() if agent.ready}
        return [
            replace(report, alive=report.name in alive)
            for report in self._stores.reports.values()
            if report.name in nodes
            or not await self._retries.run(report.uid, partial(self._delete_orphan, client, report.name))
        ]

    def _silent(self, reports: Iterable[ReportedNode]) -> list[tuple[str, float]]:
        """Return the ready nodes without a ready agent, and the Unix time of their last report (0: never).

        Ignore nodes that are not ready, because no pod starts there.
        """
        ready = {node.name for node in self._stores.nodes.values() if node.ready}
        spoke = {report.name: None if report.alive else unix_time(report.written) for report in reports}
        agents = self._stores.agents.values()
        starting = {agent.node for agent in agents if self._is_younger(agent.created_s, _STARTING_S)}
        for node in {agent.node for agent in agents}:
            spoke.setdefault(node, None if node in starting else 0.0)
        return [
            (name, last_s) for name, last_s in sorted(spoke.items()) if name in ready and last_s is not None
        ]

    async def _write_agent_conditions(
        self, client: Client, reports: Iterable[ReportedNode], now: str
    ) -> None:
        """Write the changed AgentReady conditions of the reports."""
        pods: dict[str, dict[str, bool]] = defaultdict(dict)
        for agent in self._stores.agents.values():
            pods[agent.node][agent.name] = agent.ready
        for report in reports:
            conditions = [agent_condition(pods[report.name], report.conditions, now)]
            if conditions != list(report.conditions):
                metadata = {"name": report.name, "uid": report.uid}
                document = {"kind": REPORT, "metadata": metadata, "status": {"conditions": conditions}}
                await self._retries.run(report.uid, partial(_apply_condition, client, document))

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
            for condition in _new_problems(status["conditions"], known):
                await _create_event(client, head, condition)


@contextlib.contextmanager
def _suppress_gone() -> Iterator[None]:
    """Ignore errors of objects that were deleted or replaced in the meantime."""
    try:
        yield
    except ApiError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise


async def _apply_condition(client: Client, document: Mapping[str, Any]) -> None:
    """Apply fields to a report. The fields of its agent stay."""
    with _suppress_gone():
        await client.apply(REPORTS, {"apiVersion": API_VERSION, **document}, MANAGER)


async def _create_event(client: Client, head: PolicyHead, condition: Mapping[str, Any]) -> None:
    """Create an event. A rejected event is not retried, because the status has the same message."""
    try:
        await client.create(EVENTS, head.namespace, _event(head, condition))
    except ApiError as error:
        if not error.status:
            raise
        log.warning("event rejected", extra={"policy": f"{head.namespace}/{head.name}", "error": str(error)})


def _by_policy(reports: list[ReportedNode]) -> dict[tuple[str, str], list[ReportedNode]]:
    found: dict[tuple[str, str], list[ReportedNode]] = defaultdict(list)
    for report in reports:
        for policy in report.report.policies:
            found[policy.namespace, policy.name].append(report)
    return found


def _new_problems(after: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the conditions that became bad with a new reason, to report as events."""
    known = {(condition.get("type"), condition.get("reason")) for condition in before}
    bad = {"Accepted": "False", "Degraded": "True"}
    return [
        condition
        for condition in after
        if condition["status"] == bad.get(condition["type"])
        and (condition["type"], condition["reason"]) not in known
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
