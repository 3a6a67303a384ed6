"""The results of reconcile runs. The thread of the loop writes them, any thread reads them."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tokenbucket.agent.histogram import Histogram
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.limits.offered_report import OfferedReport
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.reasons import Effect
from tokenbucket.core.status.node_status import DesiredInput, NodeState, Outcome

_LATENCIES_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OUTDATED_S = 90.0
"""A state without a further run for this time is outdated: the loop makes a run each minute."""


class Result(enum.StrEnum):
    """How a reconcile run ended."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    """Something failed that may succeed when it is retried."""
    FAILED = "failed"


@dataclass(slots=True)
class ReconcileStats:
    """Results since the agent started."""

    counts: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    seconds: float = 0.0
    """Duration of all runs."""
    completed_at_s: float | None = field(default_factory=time.time)
    """Unix time of the last complete run or of the start. ``None`` while the node must stay clean."""
    state: NodeState | None = None
    """After the last run that did not fail."""
    published_at: float = field(default_factory=time.monotonic)
    """Monotonic time of ``state``."""
    on_change: Callable[[], None] = lambda: None
    """Called in the thread of the loop when ``state`` was set."""
    offered: Callable[[SlotKey], OfferedReport | None] = lambda _: None
    """Returns the record of the traffic that a pod offered to a limit in Observe mode."""
    latencies: Histogram = field(default_factory=lambda: Histogram(_LATENCIES_S))
    """From the receipt of a change until a run has applied it. A run counts the oldest of its changes."""
    _received_at: float | None = None
    """Monotonic time of the oldest change that is not in a run that ended without an error."""
    _pending: Mapping[SlotKey, float] = field(default_factory=dict)
    """The pending and failing limits, and the monotonic time of the run that found each of them first."""

    @property
    def current(self) -> NodeState | None:
        """Return the state. ``None`` if it is outdated: the loop hangs, or each run fails."""
        return self.state if time.monotonic() - self.published_at <= _OUTDATED_S else None

    @property
    def oldest_pending_s(self) -> float:
        """Return the age of the oldest pending or failing limit or unapplied change, 0 if there is none."""
        received_at = self._received_at
        since = [*self._pending.values(), *(() if received_at is None else (received_at,))]
        return time.monotonic() - min(since) if since else 0.0

    def record_start(self, inputs: DesiredInput) -> None:
        """Record that a run starts."""
        if self._received_at is None:
            self._received_at = inputs.received_at

    def record_success(self, inputs: DesiredInput, outcome: Outcome, seconds: float) -> None:
        """Record a run that did not fail, complete or not. A limit that fails has an age of its own."""
        self._count(Result.COMPLETE if outcome.complete else Result.INCOMPLETE, seconds)
        now = time.monotonic()
        pending = (each.key for each in outcome.deviations if each.reason.effect is Effect.PENDING)
        self._pending = {key: self._pending.get(key, now) for key in (*pending, *outcome.failing)}
        if outcome.complete:
            self.completed_at_s = time.time()
        received_at, self._received_at = self._received_at, None
        if received_at is not None:
            self.latencies.observe(now - received_at)
        self._publish(NodeState(inputs, outcome))

    def record_failure(self, seconds: float) -> None:
        """Record a run that changed nothing."""
        self._count(Result.FAILED, seconds)

    def record_clean(self, inputs: DesiredInput) -> None:
        """Record that nothing of tokenbucket is left on the node, and that no more runs are made."""
        self.completed_at_s = None
        fq = self.state is not None and self.state.outcome.fq
        self._publish(NodeState(replace(inputs, enforcement=Mode.OFF), Outcome(fq=fq)))

    def _publish(self, state: NodeState) -> None:
        self.state, self.published_at = state, time.monotonic()
        self.on_change()

    def _count(self, result: Result, seconds: float) -> None:
        self.counts[result] += 1
        self.seconds += seconds
