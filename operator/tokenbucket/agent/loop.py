"""The agent's loop. One thread waits for its source, for netlink and for signals, and reconciles when a run
is due. Limits stay active when the loop ends.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Self

from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.agent.slow_steps import reported
from tokenbucket.agent.source import Source
from tokenbucket.bpf.locks import InterruptedWaitError
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.limits.slot import DeviceId, Slot
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.status.node_status import Outcome
from tokenbucket.errors import KernelError, TokenBucketError
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.events import Event
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.netlink.processes import process_name
from tokenbucket.node.device_slots import free_gone
from tokenbucket.node.view import View
from tokenbucket.pacing import NextRun, Schedule, pause_after

log = logging.getLogger(__name__)

_VERIFY_S, _VERIFY_SHARE = 4.0, 0.004
"""Interval of checks that limits run, and the most that they take of a core. With thousands of interfaces,
the interval is longer.
"""
_CONFIRM_S = 1.0
"""Interval until the check that confirms a bypass."""


class PinsRemovedError(TokenBucketError):
    """The pins are gone. Only a new agent can load the program and pin it."""

    def __init__(self, pins: Pins) -> None:
        super().__init__(f"{pins.folder}: removed while the agent was running; start the agent again")


class StopSignals:
    """Becomes readable at SIGTERM or SIGINT. Use as a context manager, in the main thread."""

    def __init__(self) -> None:
        self.stopping = False
        self._wakeup, self._waker = socket.socketpair()

    def __enter__(self) -> Self:
        self._waker.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._waker.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        return self

    def fileno(self) -> int:
        """Return the file descriptor to poll."""
        return self._wakeup.fileno()

    def drain(self) -> None:
        """Read the bytes that made it readable."""
        self._wakeup.recv(64)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopping = True

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous)
        self._wakeup.close()
        self._waker.close()


@dataclass(slots=True)
class Loop:
    """The loop of a running agent."""

    source: Source
    signals: StopSignals
    monitor: Monitor
    connection: Connection
    own_ports: set[int]
    """Senders whose events the monitor leaves out."""
    reconciler: Reconciler
    tcx: Tcx
    pins: Pins
    build: str
    stats: ReconcileStats = field(default_factory=ReconcileStats)
    follow: Callable[[Mapping[int, Slot]], None] = lambda _: None
    """Receives the slots in use every few seconds."""
    schedule: Schedule = field(default_factory=Schedule)
    _cleanup: bool = False
    _full_run_at: float = 0.0
    _verify_at: float = 0.0
    _settled: bool = False
    _deviations: frozenset[Deviation] = frozenset()
    """Those of the last run."""

    def run(self) -> None:
        """Run until a signal arrives, or until the node must be cleaned."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.source, selectors.EVENT_READ, self._source_changed)
            selector.register(self.monitor, selectors.EVENT_READ, self._network_changed)
            selector.register(self.signals, selectors.EVENT_READ, self.signals.drain)
            self._full_run_at = time.monotonic() + self.schedule.max_s  # the view is fresh
            while not self.signals.stopping:
                if self.schedule.due(time.monotonic()):
                    with reported("reconcile run"):
                        self._run_once()
                if self._cleanup:
                    return
                if time.monotonic() >= self._verify_at:
                    with reported("check that limits run"):
                        self._verify_soon()
                if self.monitor.has_read_early:
                    self._network_changed()
                now = time.monotonic()
                for key, _ in selector.select(min(self.schedule.wait(now), max(0.0, self._verify_at - now))):
                    key.data()

    def _source_changed(self) -> None:
        self.source.drain()
        self.schedule.trigger(time.monotonic())

    def _network_changed(self) -> None:
        """Mark the objects of events as stale. The agent's own changes are no events, but wake it."""
        events = self.monitor.read()
        for event in events:
            self.view.mark_stale(event)
            self.reconciler.note_change(event)
            self._record_culprit(event)
        if not all(event.is_link_local for event in events):
            self.schedule.trigger(time.monotonic())

    @property
    def view(self) -> View:
        """Return the view of the reconciler."""
        return self.reconciler.observer.view

    def _record_culprit(self, event: Event) -> None:
        if event.removes_ours and event.ifindex in self.view.filters:
            name = process_name(event.portid)
            if name:
                self.reconciler.executor.culprits[event.ifindex] = name

    def _run_once(self) -> None:
        start = time.monotonic()
        if start >= self._full_run_at:
            self.reconciler.resync()
            self.source.reread()
            self._check_periodically()
            self._full_run_at = start + self.schedule.max_s
        self.schedule.started(start, self._reconcile(start))

    def _check_periodically(self) -> None:
        """Check the state that no event reports."""
        try:
            self.tcx.remove_stale()
            with self.reconciler.locks.writing():
                free_gone(self.connection, self.reconciler.observer.slots, self.tcx)
            self.reconciler.check_periodically()
            self._verify(everything=True)
        except (KernelError, InterruptedWaitError) as error:
            log.warning("queues and bypassed limits not checked", extra={"error": str(error)})

    def _verify_soon(self) -> None:
        """Check whether attached limits run, and whether the pins are there, which no event reports."""
        self._check_pins()
        try:
            if self._verify():
                self.schedule.trigger(time.monotonic())
        except KernelError as error:
            log.warning("limits not verified", extra={"error": str(error)})

    def _verify(self, *, everything: bool = False) -> bool:
        self._verify_at = time.monotonic() + _VERIFY_S
        start_s = time.thread_time()
        verifier = self.reconciler.verifier
        known = verifier.suspects
        changed = self.reconciler.verify(everything=everything)
        interval_s = _CONFIRM_S if verifier.suspects - known else _VERIFY_S
        pause_s = pause_after(time.thread_time() - start_s, interval_s, _VERIFY_SHARE)
        self._verify_at = time.monotonic() + pause_s
        self.follow(verifier.in_use)
        return changed

    def _reconcile(self, start: float) -> NextRun:
        inputs = self.source.snapshot()
        if inputs is None:
            return NextRun.REGULAR
        if inputs.cleanup:
            self._cleanup = True
            return NextRun.REGULAR
        self.stats.record_start(inputs)
        try:
            outcome = self.reconciler.reconcile(inputs)
        except InterruptedWaitError as error:
            log.warning("reconcile run ended", extra={"error": str(error)})
            return NextRun.RETRY
        except KernelError as error:
            self._record_failure(error, time.monotonic() - start)
            return NextRun.RETRY
        seconds = time.monotonic() - start
        if outcome.actions:
            if self.reconciler.verifier.not_running:
                self._verify_at = 0.0  # the run may have attached these limits elsewhere
            details = {"actions": outcome.actions, "seconds": round(seconds, 4), "complete": outcome.complete}
            log.info("reconciled", extra=details)
        if outcome.complete and not self._settled:
            self._remove_old_programs()
        self._note_deviations(frozenset(outcome.deviations))
        self.stats.record_success(inputs, outcome, seconds)
        return _next_pass(outcome)

    def _check_pins(self) -> None:
        if not self.pins.folder.is_dir():
            raise PinsRemovedError(self.pins)

    def _record_failure(self, error: KernelError, seconds: float) -> None:
        self._check_pins()
        log.warning("reconcile run failed", extra={"error": str(error)})
        self.stats.record_failure(seconds)
        self._reconnect()

    def _note_deviations(self, deviations: frozenset[Deviation]) -> None:
        """Retry soon if the deviations are new: another limit may need only one more run."""
        if deviations != self._deviations:
            self.schedule.retries = 0
        self._deviations = deviations

    def _remove_old_programs(self) -> None:
        """Unpin programs that no filter runs. Filters of devices keep the build that attached them."""
        slots = self.reconciler.observer.slots
        if not any(isinstance(slot.owner.key.subject, DeviceId) for slot in slots.read().values()):
            self.pins.remove_other_builds(self.build)
        slots.previous_layouts.unpin()
        self.tcx.remove_stale()
        self._settled = True

    def _reconnect(self) -> None:
        """Replace the connection: after a lost message its answers may be out of step."""
        self._network_changed()  # also reads the old connection's events while they are still ignored
        self.connection.close()
        self.own_ports.discard(self.connection.portid)
        self.connection = connect()
        self.own_ports.add(self.connection.portid)
        self.reconciler.replace_view(View(self.connection, self.tcx, self.monitor.ignoring))


def _next_pass(outcome: Outcome) -> NextRun:
    if not outcome.complete:
        return NextRun.RETRY
    return NextRun.SOON if outcome.waits else NextRun.REGULAR
