"""Compute the status of each policy from the reports, and write the changed ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenbucket import units
from tokenbucket.apiserver.client import CONFLICT, NOT_FOUND, Client
from tokenbucket.apiserver.events import Events
from tokenbucket.apiserver.resources import NODES, POLICIES, REPORTS, is_ready
from tokenbucket.controller.events import ConditionEvents
from tokenbucket.controller.fleet import Fleet
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.index import ReportIndex
from tokenbucket.controller.objects import MANAGER, PolicyObject, Stores
from tokenbucket.controller.silence import SilenceDetector
from tokenbucket.controller.silent_nodes import SilentNodes
from tokenbucket.core.api.parse import API_VERSION, POLICY, REPORT
from tokenbucket.core.status.node_status import agent_condition
from tokenbucket.core.status.policy_conditions import ConditionReason
from tokenbucket.core.status.policy_status import policy_status
from tokenbucket.core.status.summary import Agents, PolicyHead, ReportedNode
from tokenbucket.errors import ApiError
from tokenbucket.pacing import RetryTracker, WriteBudget, WriteThrottle

log = logging.getLogger(__name__)

_PROGRESS_S = 10.0
"""Minimum interval of statuses that differ only in how many nodes have reported a change."""
_WRITING_S, _REST_S = 5.0, 0.1
"""Maximum duration of the writes of one kind in a run, and the pause before the rest. A slow API server must
not delay the next run, which finds newer bad news.
"""
_WATCHES_OF_A_REPORT = 3
"""The agent and two controllers."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Everything on which the status of a policy depends."""

    policy: PolicyObject
    changes: int
    """Of the entries about the policy, and of the nodes with a recent report among them."""
    agents: Agents


@dataclass(frozen=True, slots=True)
class _Write:
    """A status to write."""

    rank: int
    """0 for a policy that is not ready any more, 1 for another reason, 2 for other numbers."""
    head: PolicyHead
    status: dict[str, Any]
    before: Sequence[Mapping[str, Any]]
    interval_s: float


class StatusReconciler:
    """Write the statuses of policies. Call :meth:`reconcile` after each change."""

    def __init__(
        self,
        stores: Stores,
        again: Callable[[float], None],
        heartbeats: Heartbeats | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """Create a reconciler. ``again`` requests a reconcile run after a number of seconds.

        ``leads`` returns whether this process may write. A stopped process can lose that during a run.
        """
        self._stores, self._again, self._leads = stores, again, leads
        heartbeats = heartbeats or Heartbeats()
        self._clock, self._unix_clock = heartbeats.clock, heartbeats.unix_clock
        self._silence = SilenceDetector(stores, heartbeats, again)
        self._index, self._silent_nodes = ReportIndex(), SilentNodes(again, self._clock)
        self._throttle, self._budget = WriteThrottle(), WriteBudget()
        self._retries = RetryTracker(again, self._clock)
        self._events = ConditionEvents(Events(MANAGER, clock=self._clock), again)
        self._required: dict[str, tuple[int, int]] = {}
        """The current generation by uid, and the resource version that an agent must have used to know it."""
        self._computed: dict[str, tuple[_Inputs, dict[str, Any]]] = {}
        """The last status and its inputs by uid. A status can wait for its write for a long time."""

    async def reconcile(self, client: Client) -> None:
        """Run once. A rejected write does not block other writes, and is retried.

        Raises ApiError if the API server is unavailable. The next run writes the missing statuses.
        """
        unread = await self._silence.reread(client, self._stores.reports.values())
        reports = await self._reports_of_nodes(client)
        silence = self._silence.reasons(reports, unread)
        self._index.update(reports, {name for name, reason in silence.items() if not reason})
        silent = frozenset(self._silence.nodes(silence))
        fleet = Fleet.of([report for report in reports if report.name in self._index.recent])
        policies = self._stores.policies.values()
        namespaces = {policy.head.namespace for policy in policies}
        await self._silent_nodes.update(client, silent.union(name for _, name in fleet.cut), namespaces)
        self._forget({policy.head.uid for policy in policies}, {report.uid for report in reports})
        now = units.rfc3339(self._unix_clock())
        writes = await self._changed_statuses(policies, fleet, silent, now)
        await self._write_statuses(client, writes, len(reports))
        await self._create_missing_events(client, policies)
        await self._write_agent_conditions(client, reports, silence, now)

    def _forget(self, policies: set[str], reports: set[str]) -> None:
        """Forget objects that no longer exist."""
        self._throttle.retain(policies)
        self._events.retain(policies)
        self._silence.retain(reports)
        self._retries.retain(policies | reports)
        self._required = {uid: known for uid, known in self._required.items() if uid in policies}
        self._computed = {uid: known for uid, known in self._computed.items() if uid in policies}

    async def _reports_of_nodes(self, client: Client) -> list[ReportedNode]:
        """Return the reports. Delete the reports of deleted nodes."""
        nodes = {node.name for node in self._stores.nodes.values()}
        return [
            report
            for report in self._stores.reports.values()
            if report.name in nodes
            or not self._leads()
            or not await self._retries.run(report.uid, partial(self._delete_orphan, client, report.name))
        ]

    async def _changed_statuses(
        self,
        policies: Iterable[PolicyObject],
        fleet: Fleet,
        silent: frozenset[str],
        now: str,
    ) -> list[_Write]:
        writes = []
        for policy in policies:
            await asyncio.sleep(0)  # thousands of entries or pods take time, and the probes share the thread
            head = policy.head
            agents = Agents(
                bool(self._index.recent),
                await self._silent_nodes.affected(head, silent),
                self._index.unseen(head, fleet.behind(self._required_version(policy))),
                fleet.unsupported(head.features),
                await self._silent_nodes.affected(head, self._index.unseen(head, fleet.omitting(head))),
            )
            inputs = _Inputs(policy, self._index.changes(head), agents)
            known = self._computed.get(head.uid)
            if not known or known[0] != inputs:
                before = policy.status.get("conditions") or []
                status = policy_status(head, self._index.of(head), before, now, agents)
                known = self._computed[head.uid] = inputs, status
            becomes_ready = is_ready({"status": known[1]}) and not policy.known_ready
            if known[1] != policy.status and not (becomes_ready and self._silent_nodes.unread(head)):
                writes.append(_write(policy, known[1]))
        return writes

    def _required_version(self, policy: PolicyObject) -> int:
        """Return the resource version that proves that an agent knows the current generation.

        Writes of the status increase the version of a policy. Therefore, it is the version at which this
        process first saw the generation. If the status is Ready, all agents knew the generation. Versions
        decrease only if the storage is restored from a backup.
        """
        head = policy.head
        known = self._required.get(head.uid)
        if not known or known[0] != head.generation:
            known = head.generation, -1 if not known and policy.known_ready else policy.version
        known = self._required[head.uid] = head.generation, min(known[1], policy.version)
        return known[1]

    async def _write_statuses(self, client: Client, writes: list[_Write], nodes: int) -> None:
        """Write the statuses that the limits of writes allow now, the worst news first."""
        waits, end_s = [], self._clock() + _WRITING_S
        for write in sorted(writes, key=lambda write: write.rank):
            if not self._leads():
                return
            now = self._clock()
            budget_s = max(self._budget.wait_s(now), _REST_S * (now >= end_s))
            if budget_s > 0:
                waits.append(budget_s)
                break
            wait_s = (
                self._throttle.wait_s(write.head.uid, nodes, now, write.interval_s) if write.rank else 0.0
            )
            if wait_s > 0:
                waits.append(wait_s)
            else:
                await self._retries.run(write.head.uid, partial(self._write, client, write, nodes))
        if waits:
            self._again(min(waits))

    async def _write(self, client: Client, write: _Write, nodes: int) -> None:
        head = write.head
        metadata = {"namespace": head.namespace, "name": head.name, "uid": head.uid}
        document = {"apiVersion": API_VERSION, "kind": POLICY, "metadata": metadata, "status": write.status}
        with _suppress_gone():
            # Before the status: without an answer, the next run still finds that a condition becomes bad.
            await self._events.create(client, head, write.status["conditions"], write.before)
            await client.apply(POLICIES, document, MANAGER, "status")
            now = self._clock()
            self._throttle.record(head.uid, now)
            self._budget.spend(nodes, now)

    async def _create_missing_events(self, client: Client, policies: Iterable[PolicyObject]) -> None:
        """Create the events that were too many before, if the conditions are still bad."""
        for policy in policies:
            if self._events.is_behind(policy.head.uid) and self._leads():
                conditions = self._computed[policy.head.uid][1]["conditions"]
                await self._events.create(client, policy.head, conditions, conditions)

    async def _write_agent_conditions(
        self, client: Client, reports: Iterable[ReportedNode], silence: Mapping[str, str], now: str
    ) -> None:
        """Write the changed AgentReady conditions of the reports."""
        pods: dict[str, dict[str, bool]] = defaultdict(dict)
        end_s = self._clock() + _WRITING_S
        for agent in self._stores.agents.values():
            pods[agent.node][agent.name] = agent.ready
        for report in reports:
            condition = agent_condition(silence[report.name], pods[report.name], report.conditions, now)
            if condition in report.conditions or not self._leads():
                continue
            now_s = self._clock()
            wait_s = max(self._budget.wait_s(now_s), _REST_S * (now_s >= end_s))
            if wait_s > 0:
                self._again(wait_s)
                return
            metadata = {"name": report.name, "uid": report.uid}
            document = {"kind": REPORT, "metadata": metadata, "status": {"conditions": [condition]}}
            self._budget.spend(_WATCHES_OF_A_REPORT, self._clock())
            await self._retries.run(report.uid, partial(_apply_condition, client, document))

    async def _delete_orphan(self, client: Client, name: str) -> bool:
        try:
            await client.get(NODES, name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            await client.delete(REPORTS, name)
            log.info("report deleted with its node", extra={"node": name})
            return True
        return False


def _write(policy: PolicyObject, status: dict[str, Any]) -> _Write:
    """Return the write of a status."""
    before = policy.status.get("conditions") or []
    reason = next(item["reason"] for item in status["conditions"] if item["type"] == "Ready")
    same = reason == policy.ready.reason and status["observedGeneration"] == policy.status.get(
        "observedGeneration"
    )
    worse = is_ready({"status": policy.status}) and not is_ready({"status": status})
    interval_s = _PROGRESS_S if same and reason == ConditionReason.UPDATING else 0.0
    return _Write(0 if worse else 1 + same, policy.head, status, before, interval_s)


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
