"""Build the TokenBucketNode of this node, and keep it equal to the state of the agent.

The agent writes it after a change, at regular intervals, and at once after another program has changed or
deleted it. Regular writes show that the agent has access to the API server.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket import __version__, units
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.informers import Informers
from tokenbucket.apiserver.resources import NODES, REPORTS, Selection, metadata_of, version_of
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.core.api.node_report import (
    AgentInfo,
    NodeReport,
    PodReport,
    Sync,
    WatchContact,
    entries_that_fit,
    sync_document,
    to_document,
)
from tokenbucket.core.api.parse import API_VERSION, REPORT
from tokenbucket.core.api.policy import FEATURES
from tokenbucket.core.planning.foreign import most_frequent
from tokenbucket.core.status.explanation import fails
from tokenbucket.core.status.node_status import (
    NodeState,
    annotation_report,
    pods_not_programmed,
    policy_reports,
)
from tokenbucket.pacing import ReportPace

MANAGER = "tokenbucket-agent"
_PODS = 64
"""Maximum number of pods in a report, as in its schema."""
_OF_A_POLICY = 8
"""Number of pods that the status of a policy names. More must not displace those of other policies."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """The report in the API server, without the conditions of the controller."""

    uid: str
    version: int
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Applied:
    """The last accepted write."""

    document: Mapping[str, Any]
    """Without the fields that change with each write."""
    sent: Mapping[str, Any]
    answer: _Stored
    """It can lack fields that an older CustomResourceDefinition does not have."""
    policies_version: int


class OwnReport:
    """The report of one agent."""

    def __init__(self, source: ClusterSource, changed: Callable[[], None]) -> None:
        """Create a report. ``changed`` is called after another program may have changed it."""
        self._source, self._options = source, source.options
        self.pace = ReportPace(source.options.report_spread_s)
        self._store: Store[_Stored] = Store(_read, changed)
        selection = Selection(REPORTS, f"metadata.name={source.options.node}")
        # Not among the watches of the source: without a report, limits are enforced all the same.
        self.informers = Informers(Watch(selection, self._store))
        self._applied: _Applied | None = None
        self._lock = asyncio.Lock()
        self.reported_at_s: float | None = None
        """Unix time at which the API server accepted the last report."""
        self.due = False
        """Whether the report must be written even if nothing has changed."""

    async def count_nodes(self, client: Client) -> None:
        """Derive the pace of reports from the number of nodes. Raises ApiError."""
        self.pace.nodes = await client.count(NODES)

    def pause_s(self) -> float:
        """Return the time to wait before the next write, in which further changes are combined with it."""
        return self.pace.pause_s(time.monotonic())

    async def repair(self, client: Client, state: NodeState) -> None:
        """Write the report if it was overwritten, whatever the pace is. Raises ApiError."""
        if self._is_overwritten():
            await self.write(client, state)

    async def write(self, client: Client, state: NodeState) -> None:
        """Write the report if it is due, has changed or was overwritten. Raises ApiError."""
        async with self._lock:
            await self._write(client, state)

    async def _write(self, client: Client, state: NodeState) -> None:
        document = self._document(state)
        applied = self._applied
        if (
            applied
            and applied.document == document
            and not self.due
            and not self._is_overwritten()
            and not self._has_new_policies(applied, state)
        ):
            return
        stored = self._store.get("", self._options.node)
        if state.inputs.cleanup and not stored:  # a cleanup deletes the report of a clean node
            self.reported_at_s = time.time() if self._store.synced.is_set() else self.reported_at_s
            return
        sync = self._sync(state)
        status = document["status"] | sync_document(sync)
        metadata = document["metadata"] | ({"uid": stored.uid} if stored and state.inputs.cleanup else {})
        answer = await client.apply(REPORTS, {**document, "metadata": metadata, "status": status}, MANAGER)
        others = _additions(_read(answer).status, status)
        if others:  # an apply leaves the fields of other writers
            answer = await client.patch(REPORTS.path(name=self._options.node), {"status": others})
        self.pace.record(time.monotonic())
        self._applied = _Applied(document, status, _read(answer), sync.policies_version)
        self.due, self.reported_at_s = False, time.time()

    def _is_overwritten(self) -> bool:
        """Return whether another program has changed or deleted the report since the last write."""
        applied, stored = self._applied, self._store.get("", self._options.node)
        if not applied or not self._store.synced.is_set():
            return False
        if not stored:
            return self._store.version > applied.answer.version
        known = (applied.sent, applied.answer.status)
        return stored.version > applied.answer.version and stored.status not in known

    def _has_new_policies(self, applied: _Applied, state: NodeState) -> bool:
        """Return whether a run has used a policy that changed after the last write."""
        return applied.policies_version < min(self._source.policies.changed_at, state.inputs.policies_version)

    def _policies_version(self, state: NodeState) -> int:
        """Return the version up to which the last run has used all policies.

        Later versions without a change, such as new statuses, count as used.
        """
        newest, used = self._source.policies.version, state.inputs.policies_version
        return newest if self._source.policies.changed_at <= used else used

    def _sync(self, state: NodeState) -> Sync:
        contacts = self._source.informers.contacts()
        watches = tuple(
            WatchContact(name, units.rfc3339(at_s) if at_s else "") for name, at_s in contacts.items()
        )
        period_s = round(self.pace.sync_period_s)
        return Sync(units.rfc3339(time.time()), period_s, self._policies_version(state), watches)

    def _document(self, state: NodeState) -> dict[str, Any]:
        inputs, outcome = state.inputs, state.outcome
        pods = _ranked(pods_not_programmed(state))
        policies = policy_reports(state)
        entries = tuple(entries_that_fit(policies))
        problems = filter(None, (inputs.problem, *self._source.informers.problems))
        report = NodeReport(
            agent=AgentInfo(__version__, self._options.pod, self._options.release, FEATURES),
            kernel=os.uname().release,
            fq=outcome.fq,
            enforcement=inputs.enforcement.value,
            problem="; ".join(problems),
            clean=inputs.cleanup,
            limits=len(outcome.active),
            attachments=outcome.attachments,
            foreign_programs=most_frequent(outcome.foreign_programs),
            policies=entries,
            policies_omitted=len(policies) - len(entries),
            annotations=annotation_report(state),
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


def _read(document: Mapping[str, Any]) -> _Stored:
    metadata = metadata_of(document)
    status = {name: value for name, value in (document.get("status") or {}).items() if name != "conditions"}
    return _Stored(str(metadata.get("uid") or ""), version_of(metadata), status)


def _additions(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merge patch that removes the fields that the agent has not sent."""
    patch: dict[str, Any] = dict.fromkeys(stored.keys() - sent.keys())
    for name in stored.keys() & sent.keys():
        if isinstance(stored[name], dict) and isinstance(sent[name], dict):
            patch[name] = _additions(stored[name], sent[name])
    return {name: value for name, value in patch.items() if value != {}}


def _ranked(pods: Iterable[PodReport]) -> list[PodReport]:
    """Return the first pods of each policy before others, those without a limit first."""
    of_policy: Counter[tuple[str, str]] = Counter()
    ranked = []
    for pod in sorted(pods, key=lambda pod: (not fails(pod.reason), str(pod))):
        of_policy[pod.namespace, pod.policy] += 1
        ranked.append((of_policy[pod.namespace, pod.policy] > _OF_A_POLICY, pod))
    return [pod for _, pod in sorted(ranked, key=lambda item: item[0])]
