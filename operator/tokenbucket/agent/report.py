"""Build the TokenBucketNode of this node, and keep it equal to the state of the agent.

The agent writes it after a change, at regular intervals, and at once after another program has changed or
deleted it. Regular writes show that the agent has access to the API server.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket import __version__
from tokenbucket.agent.cluster import ClusterSource
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.informers import Informers
from tokenbucket.apiserver.resources import NODES, REPORTS, Selection, metadata_of, version_of
from tokenbucket.apiserver.store import Store
from tokenbucket.apiserver.watch import Watch
from tokenbucket.core.api.node_report import (
    AgentInfo,
    NodeReport,
    Sync,
    WatchContact,
    sync_document,
    to_document,
)
from tokenbucket.core.api.parse import API_VERSION, REPORT
from tokenbucket.core.api.policy import FEATURES
from tokenbucket.core.planning.foreign import most_frequent
from tokenbucket.core.status.node_status import (
    NodeState,
    annotation_report,
    pods_not_programmed,
    policy_reports,
)
from tokenbucket.pacing import ReportPace

MANAGER = "tokenbucket-agent"
_POLICIES, _PODS = 2048, 64
"""Maximum numbers of items in a report, as in its schema."""
_REPAIR_S = 1.0
"""Maximum delay of the repair of a report that another program has changed."""


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
    status: Mapping[str, Any]
    version: int
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
        self.reported_at_s: float | None = None
        """Unix time at which the API server accepted the last report."""
        self.due = False
        """Whether the report must be written even if nothing has changed."""

    async def count_nodes(self, client: Client) -> None:
        """Derive the pace of reports from the number of nodes. Raises ApiError."""
        self.pace.nodes = await client.count(NODES)

    def pause_s(self) -> float:
        """Return the time to wait before the next write, in which further changes are combined with it."""
        if self._is_overwritten():
            return random.uniform(0.1, 1) * _REPAIR_S  # noqa: S311 - no secret
        return self.pace.pause_s(time.monotonic())

    async def write(self, client: Client, state: NodeState) -> None:
        """Write the report if it is due, has changed or was overwritten. Raises ApiError."""
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
        now = time.monotonic()
        self.pace.record(now)
        version = version_of(metadata_of(answer))
        self._applied = _Applied(document, status, version, sync.policies_version)
        self.due, self.reported_at_s = False, time.time()

    def _is_overwritten(self) -> bool:
        """Return whether another program has changed or deleted the report since the last write."""
        applied, stored = self._applied, self._store.get("", self._options.node)
        if not applied or not self._store.synced.is_set():
            return False
        if not stored:
            return self._store.version > applied.version
        return stored.version > applied.version and stored.status != applied.status

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
        watches = tuple(WatchContact(name, _rfc3339(at_s) if at_s else "") for name, at_s in contacts.items())
        period_s = round(self.pace.sync_period_s)
        return Sync(_rfc3339(time.time()), period_s, self._policies_version(state), watches)

    def _document(self, state: NodeState) -> dict[str, Any]:
        inputs, outcome = state.inputs, state.outcome
        pods = sorted(pods_not_programmed(state), key=str)
        policies = policy_reports(state)
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
            policies=policies[:_POLICIES],
            policies_omitted=max(0, len(policies) - _POLICIES),
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


def _rfc3339(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
