"""Judge whether reports are recent. A report that is not recent proves nothing about its node."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tokenbucket.apiserver.connection import Outage
from tokenbucket.core.status.summary import ReportedNode
from tokenbucket.units import unix_time

_RESTART_S = 90.0
"""Grace period for an agent whose pod is not ready: limits outlive it, and rollouts restart all agents."""
_DEAF_S = 100.0
"""Age of the last contact of a watch. The API server sends a bookmark once a minute, and a watch without any
event reconnects after 70 s."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last change of a report."""

    last: str
    """The time in the report, by the clock of the node."""
    at: float
    outages_s: float
    """Duration of all outages before it."""


@dataclass(slots=True)
class Heartbeats:
    """The times at which reports changed, by the clock of the controller: clocks of nodes can differ."""

    outage: Callable[[], Outage] = Outage
    """The last outage of the API server, in which agents could not report either, by the monotonic clock.

    Outages do not count as time of silence. After a long one, agents have the time for their next report
    again, except those that were silent before. A restart has no second grace period.
    """
    clock: Callable[[], float] = time.monotonic
    unix_clock: Callable[[], float] = time.time
    _seen: dict[str, _Seen] = field(default_factory=dict)
    """Last change by uid."""

    def silence(self, report: ReportedNode, left_s: float) -> str:
        """Return why a report is outdated, or an empty text. ``left_s`` is the time until it is outdated."""
        sync = report.report.sync
        if left_s <= 0:
            return "has not reported for too long"
        written_s = unix_time(sync.last)
        for watch in sync.watches:
            age_s = written_s - unix_time(watch.last_contact)
            if age_s - self._outage_s(report, age_s) > _DEAF_S:
                return f"has no contact with the API server for {watch.resource}"
        return ""

    def _outage_s(self, report: ReportedNode, age_s: float) -> float:
        """Return how long the API server was away in the seconds before a report."""
        seen, outage = self._seen.get(report.uid), self.outage()
        if not seen:
            return 0.0
        return max(0.0, min(seen.at, outage.end) - max(seen.at - age_s, outage.start))

    def left_s(self, report: ReportedNode, *, pod_ready: bool) -> float:
        """Return the seconds until the report is outdated."""
        now, last = self.clock(), report.report.sync.last
        seen = self._seen.get(report.uid)
        if seen is None:  # it may be old, and the clocks of nodes can differ
            written_s = unix_time(report.written) or unix_time(last)
            seen = _Seen(last, now - max(0.0, self.unix_clock() - written_s), self.outage().total_s)
        elif seen.last != last:
            seen = _Seen(last, now, self.outage().total_s)
        self._seen[report.uid] = seen
        return self._left_s(seen, report.report.sync.silent_after_s, 0.0 if pod_ready else _RESTART_S)

    def _left_s(self, seen: _Seen, reports_s: float, restart_s: float) -> float:
        """Return the rest of the time for a report, or of the grace period of a restart."""
        now, outage, allowed_s = self.clock(), self.outage(), max(reports_s, restart_s)
        left_s = allowed_s - (now - seen.at - (outage.total_s - seen.outages_s))
        before_s = outage.start - seen.at - max(0.0, outage.earlier_s - seen.outages_s)
        if outage.end <= seen.at or before_s >= allowed_s:  # no outage since, or it was silent before
            return left_s
        return max(left_s, reports_s - (now - outage.end - outage.later_s))

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other reports, which no longer exist."""
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in uids}
