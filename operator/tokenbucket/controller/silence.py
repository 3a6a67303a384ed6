"""Find the nodes whose agents do not report.

The watch of the controller can be late while the API server answers, and a stopped process misses time.
Therefore, the controller reads a late report again before it counts the agent as silent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from tokenbucket.apiserver.client import FORBIDDEN, Client
from tokenbucket.apiserver.resources import REPORTS, Selection
from tokenbucket.controller.heartbeats import Heartbeats
from tokenbucket.controller.objects import Stores
from tokenbucket.core.status.summary import ReportedNode
from tokenbucket.errors import ApiError

_STARTING_S = 60.0
"""Time that a new agent pod or node has for its first report."""
_READS = 50
"""Maximum number of late reports that one run reads. Others wait for the next run."""
_NEXT_READS_S = 1.0


class SilenceDetector:
    """Judge all reports of the stores. ``again`` requests a run after a number of seconds."""

    def __init__(self, stores: Stores, heartbeats: Heartbeats, again: Callable[[float], None]) -> None:
        """Create a detector."""
        self._stores, self._heartbeats, self._again = stores, heartbeats, again
        self._confirmed: dict[str, str] = {}
        """The time in a late report that a read returned too, by uid."""
        self._missing: dict[str, float] = {}
        """The ready nodes without a report, and since when."""

    async def reread(self, client: Client, reports: Iterable[ReportedNode]) -> set[str]:
        """Read late reports again, into the store. Return the nodes with a late report that is not read yet.

        Raises ApiError. The caller then writes no status, so that an outage makes no agent silent.
        """
        ready = self._ready()
        late = [report for report in reports if self._is_late(report, pod_ready=report.name in ready)]
        for report in late[:_READS]:
            await self._read(client, report.name)
            self._confirmed[report.uid] = report.report.sync.last
        if late[_READS:]:
            self._again(_NEXT_READS_S)
        return {report.name for report in late[_READS:]}

    async def _read(self, client: Client, name: str) -> None:
        try:
            documents = await client.list(Selection(REPORTS, f"metadata.name={name}"))
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            return  # reports cannot be read, and so prove nothing
        for document in documents:
            self._stores.reports.put(document)

    def _is_late(self, report: ReportedNode, *, pod_ready: bool) -> bool:
        """Return whether a report is late, and no read has returned the same one."""
        last = report.report.sync.last
        if self._confirmed.get(report.uid) == last:
            return False
        return self._heartbeats.left_s(report, pod_ready=pod_ready) <= 0

    def reasons(self, reports: Iterable[ReportedNode], unread: Collection[str] = ()) -> dict[str, str]:
        """Return for each report why it is outdated. Request a run for the time at which the next one is.

        The reports of ``unread`` nodes count as recent.
        """
        ready = self._ready()
        found, waits = {}, []
        for report in reports:
            left_s = self._heartbeats.left_s(report, pod_ready=report.name in ready)
            found[report.name] = "" if report.name in unread else self._heartbeats.silence(report, left_s)
            waits.append(left_s)
        waits = [wait_s for wait_s in waits if wait_s > 0]
        if waits:
            self._again(min(waits))
        return found

    def _ready(self) -> set[str]:
        return {agent.node for agent in self._stores.agents.values() if agent.ready}

    def nodes(self, reasons: Mapping[str, str]) -> list[str]:
        """Return the ready nodes without a recent report, with or without an agent pod.

        Ignore nodes that are not ready, because no pod starts there.
        """
        ready = {node.name: node.created_s for node in self._stores.nodes.values() if node.ready}
        now, missing = self._heartbeats.clock(), ready.keys() - reasons.keys()
        self._missing = {name: self._missing.get(name, now) for name in missing}
        pods = sorted(self._stores.agents.values(), key=lambda agent: -agent.created_s)
        since = ready | {agent.node: agent.created_s for agent in pods}  # of the oldest pod
        silent = {name for name, reason in reasons.items() if reason} & ready.keys()
        left_s = {name: self._left_s(name, since[name]) for name in missing}
        if starting := [each_s for each_s in left_s.values() if each_s > 0]:
            self._again(min(starting))
        return sorted(silent | {name for name in missing if left_s[name] <= 0})

    def _left_s(self, node: str, created_s: float) -> float:
        """Return the seconds in which a first report can still arrive.

        Pods that the kubelet rejects are replaced again and again, and clocks differ. Therefore, a node has
        the time only once.
        """
        age_s = self._heartbeats.unix_clock() - created_s
        return _STARTING_S - max(age_s, self._heartbeats.clock() - self._missing[node])

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other reports, which no longer exist."""
        self._heartbeats.retain(uids)
        self._confirmed = {uid: last for uid, last in self._confirmed.items() if uid in uids}
