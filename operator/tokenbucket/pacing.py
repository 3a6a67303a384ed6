"""Limit how often work is done. Times are seconds of a monotonic clock, passed in by the caller.

============== ================================== ====================================================
class          limits                             guarantee
============== ================================== ====================================================
Schedule       reconcile runs of the agent        at least ``min_s`` and at most ``max_s`` apart
Backoffs       attempts after an error            exponential delays that differ between processes
Worker         reports and statuses               one run for many changes, retried after a failure
RetryTracker   writes that the API server rejects a rejected object does not block other objects
ReportPace     reports of an agent                a rate that fits the number of nodes
WriteThrottle  statuses of a policy               a bounded rate of watch events in the whole cluster
WriteBudget    statuses of all policies           a bounded rate of watch events in the whole cluster
Repairs        filters and queues that are gone   at most five repairs of an interface in a minute
============== ================================== ====================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_BACKOFF_S = 20.0
"""A status that depends on the next attempt must be correct within 30 s."""
ALL_EVENTS_PER_S = 2000.0
"""Maximum rate of watch events that the statuses of all policies cause."""
EVENTS_PER_S = 100.0
"""Maximum rate of watch events that the status of one policy causes."""
LONGEST_INTERVAL_S = 60.0
REPAIR_WINDOW_S = 60.0
REPAIRS = 5
"""Maximum number of repairs of one interface in the window."""
OF_NO_OBJECT = frozenset({0, 401, 429, 502, 503})
"""Status codes that do not depend on the object: server unavailable, overloaded, or not authenticated."""


class NextRun(enum.Enum):
    """The work that a reconcile run left."""

    REGULAR = enum.auto()
    """None."""
    SOON = enum.auto()
    """Work that only time makes possible."""
    RETRY = enum.auto()
    """Failed work that may succeed when it is retried."""


@dataclass(slots=True)
class Schedule:
    """Times of a level-triggered loop. Many triggers cause one run. The first run is due at once."""

    settle_s: float = 0.004
    """Time from a trigger to a run. The events of a new pod come within milliseconds and cause one run."""
    min_s: float = 0.005
    max_s: float = 60.0
    retry_s: float = 1.0
    longest_retry_s: float = 30.0
    wait_retry_s: float = 5.0
    retries: int = 0
    """Consecutive runs that failed in the same way. Each doubles the pause before the next."""
    _last: float = -math.inf
    _due: float = -math.inf

    def trigger(self, now: float) -> None:
        """Request a run soon, because something may have changed."""
        self._due = min(self._due, max(now + self.settle_s, self._last + self.min_s))

    def due(self, now: float) -> bool:
        """Return whether a run must start now."""
        return now >= self._due

    def wait(self, now: float) -> float:
        """Return the seconds until the next run is due."""
        return max(0.0, self._due - now)

    def started(self, now: float, following: NextRun = NextRun.REGULAR) -> None:
        """Record a run that started at ``now``."""
        pauses_s = {
            NextRun.REGULAR: self.max_s,
            NextRun.SOON: self.wait_retry_s,
            NextRun.RETRY: min(self.longest_retry_s, self.retry_s * 2.0 ** min(self.retries, 16)),
        }
        self.retries = self.retries + 1 if following is NextRun.RETRY else 0
        self._last = now
        self._due = now + min(self.max_s, pauses_s[following])


def pause_after(cost_s: float, least_s: float, share: float) -> float:
    """Return the pause after which work may repeat, so that it takes at most this share of a core."""
    return max(least_s, cost_s / share)


class Backoffs:
    """Endless delays between attempts in seconds: exponential up to 20 s, each shortened by up to half.

    Thousands of agents can lose the API server at the same moment, and must not reconnect at the same moment.
    """

    def __iter__(self) -> Iterator[float]:
        wait = 1.0
        while True:
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            wait = min(2 * wait, LONGEST_BACKOFF_S)


class Worker:
    """Run work after changes. Many changes cause one run, and a failed run is retried with backoff."""

    def __init__(self, pause_s: Callable[[], float]) -> None:
        """Create a worker. It waits ``pause_s()`` after a change, to combine further changes with it."""
        self._pause_s = pause_s
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def trigger(self) -> None:
        """Request a run. Any thread may call it."""
        if not self._loop:
            self._changed.set()
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    def trigger_after(self, seconds: float) -> None:
        """Request a run later. Call it in the event loop of the worker."""
        asyncio.get_running_loop().call_later(seconds, self._changed.set)

    async def run(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Run ``work`` after each change, until it is canceled. ``work`` returns whether it succeeded."""
        self._loop = asyncio.get_running_loop()
        backoffs = iter(Backoffs())
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._pause_s())
            self._changed.clear()
            if await work():
                backoffs = iter(Backoffs())
            else:
                await asyncio.sleep(next(backoffs))
                self._changed.set()


@dataclass(frozen=True, slots=True)
class _Rejection:
    status: int
    due: float
    backoffs: Iterator[float]


class RetryTracker:
    """Track rejected writes by the uid of the object."""

    def __init__(self, again: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Create a tracker. ``again`` requests another attempt after a number of seconds."""
        self._again = again
        self._clock = clock
        self._rejections: dict[str, _Rejection] = {}

    async def run(self, uid: str, write: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``write``, or ``None`` if the write was rejected or its retry is not due.

        Raises ApiError if the error does not depend on the object. Stop writing then.
        """
        known = self._rejections.get(uid)
        if known and self._clock() < known.due:
            return None
        try:
            result = await write()
        except ApiError as error:
            if error.status in OF_NO_OBJECT:
                raise
            self._record(uid, error)
            return None
        self._rejections.pop(uid, None)
        return result

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other objects, which no longer exist."""
        self._rejections = {uid: rejection for uid, rejection in self._rejections.items() if uid in uids}

    def _record(self, uid: str, error: ApiError) -> None:
        known = self._rejections.get(uid)
        if not known or known.status != error.status:  # log an error only if it changes
            log.warning("write rejected", extra={"error": str(error)})
        backoffs = known.backoffs if known else iter(Backoffs())
        wait_s = next(backoffs)
        self._rejections[uid] = _Rejection(error.status, self._clock() + wait_s, backoffs)
        self._again(wait_s)


@dataclass(slots=True)
class ReportPace:
    """Spread the reports of all agents over a time that grows with the number of nodes.

    After one change of a policy, the API server receives at most 150 reports per second. A quiet agent writes
    its report regularly, all agents together at most 50 per second.
    """

    override_s: float = 0.0
    """The spread. 0 derives it from the number of nodes."""
    nodes: int = 1
    _reported_at: float = -math.inf

    @property
    def spread_s(self) -> float:
        """Return the time in seconds over which all agents spread their reports of one change."""
        return self.override_s or min(max(self.nodes / 150, 1.0), 60.0)

    @property
    def sync_period_s(self) -> float:
        """Return the maximum interval of the reports of one agent in seconds."""
        return min(max(self.nodes / 50, 20.0), 300.0)

    def pause_s(self, now: float) -> float:
        """Return the time to wait before the next report: at most one per spread."""
        spread = self.spread_s
        return max(random.uniform(0.1, 1.0) * spread, self._reported_at + spread - now)  # noqa: S311 - no secret

    def record(self, now: float) -> None:
        """Record a report."""
        self._reported_at = now


@dataclass(slots=True)
class WriteThrottle:
    """Enforce a minimum interval between writes of the status of a policy.

    Every agent watches the policies, so one write causes one event on every node. The interval grows with
    the number of nodes, because pods change all the time in a large cluster.
    """

    _written: dict[Hashable, float] = field(default_factory=dict)

    def wait_s(self, policy: Hashable, nodes: int, now: float, least_s: float = 0.0) -> float:
        """Return the seconds to wait before the next write. ``least_s`` is a longer interval."""
        if policy not in self._written:
            return 0.0
        interval_s = max(least_s, min(nodes / EVENTS_PER_S, LONGEST_INTERVAL_S))
        return max(0.0, self._written[policy] + interval_s - now)

    def record(self, policy: Hashable, now: float) -> None:
        """Record a write."""
        self._written[policy] = now

    def retain(self, policies: Collection[Hashable]) -> None:
        """Forget all other policies, which no longer exist."""
        self._written = {policy: at for policy, at in self._written.items() if policy in policies}


@dataclass(slots=True)
class Repairs:
    """Limit the repairs of one interface, so that two programs do not fight over a place."""

    _times: dict[Hashable, deque[float]] = field(default_factory=dict)

    def allow(self, place: Hashable, now: float) -> bool:
        """Count a repair, and return whether to make it: at most five in a minute."""
        for each in [each for each, past in self._times.items() if past[-1] <= now - REPAIR_WINDOW_S]:
            del self._times[each]
        if self.exhausted(place, now):
            return False
        self._times.setdefault(place, deque(maxlen=REPAIRS)).append(now)
        return True

    def exhausted(self, place: Hashable, now: float) -> bool:
        """Return whether the next repair would be one too many."""
        times = self._times.get(place)
        return times is not None and len(times) == REPAIRS and times[0] > now - REPAIR_WINDOW_S


@dataclass(slots=True)
class WriteBudget:
    """Limit the rate of watch events that all writes together cause, after a burst of one second."""

    _due: float = -math.inf

    def wait_s(self, now: float) -> float:
        """Return the time to wait before the next write in seconds, or 0."""
        return max(0.0, self._due - 1.0 - now)

    def spend(self, events: int, now: float) -> None:
        """Record a write that causes a number of events."""
        self._due = max(self._due, now) + events / ALL_EVENTS_PER_S
