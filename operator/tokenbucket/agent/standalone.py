"""The agent without a cluster: a folder of manifests in place of an API server.

One thread: it waits for the folder, for netlink and for signals, and makes a pass when the schedule says so.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tokenbucket.agent.reconcile import Reconciler
from tokenbucket.agent.schedule import Schedule
from tokenbucket.bpf.load import load_or_keep
from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Programs, Slots
from tokenbucket.errors import KernelError, Problem, SpecError
from tokenbucket.manifests.folder import Folder, Manifests
from tokenbucket.manifests.watch import FolderWatch
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.events import Event
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.netlink.processes import process_name
from tokenbucket.netlink.view import View

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Standalone:
    """The running agent."""

    folder: Folder
    watch: FolderWatch
    monitor: Monitor
    connection: Connection
    own_ports: set[int]
    """Senders whose events the monitor leaves out."""
    reconciler: Reconciler
    pins: Pins
    build: str
    schedule: Schedule = field(default_factory=Schedule)
    manifests: Manifests = field(default_factory=Manifests)
    stopping: bool = False
    _full_pass_at: float = 0.0
    _settled: bool = False

    def run(self) -> None:
        """Runs until :attr:`stopping`. Limits stay in force afterwards."""
        with selectors.DefaultSelector() as selector, _woken_by_signals(self) as wakeup:
            selector.register(self.watch, selectors.EVENT_READ, self._folder_changed)
            selector.register(self.monitor, selectors.EVENT_READ, self._network_changed)
            selector.register(wakeup, selectors.EVENT_READ, lambda: wakeup.recv(64))
            self._read_folder()
            self._full_pass_at = time.monotonic() + self.schedule.max_s  # the view is fresh
            while not self.stopping:
                if self.schedule.due(time.monotonic()):
                    self._pass()
                for key, _ in selector.select(self.schedule.wait(time.monotonic())):
                    key.data()

    def _folder_changed(self) -> None:
        self.watch.drain()
        self._read_folder()
        self.schedule.kick(time.monotonic())

    def _read_folder(self) -> None:
        """Reads the folder; one that cannot be read is no reason to lift what it said before."""
        try:
            manifests = self.folder.read()
        except OSError as error:
            log.warning("folder not read", extra={"folder": str(self.folder.path), "error": error.strerror})
            return
        for message in manifests.errors:
            if message not in self.manifests.errors:
                log.error("invalid document", extra={"error": message})
        self.manifests = manifests

    def _network_changed(self) -> None:
        for event in self.monitor.read():
            self.reconciler.view.note(event)
            self._blame(event)
        self.schedule.kick(time.monotonic())

    def _blame(self, event: Event) -> None:
        if event.removes_ours and event.ifindex in self.reconciler.view.filters:
            name = process_name(event.portid)
            if name:
                self.reconciler.culprits[event.ifindex] = name

    def _pass(self) -> None:
        start = time.monotonic()
        if start >= self._full_pass_at:
            self.reconciler.view.invalidate_all()
            self._read_folder()
            self._full_pass_at = start + self.schedule.max_s
        try:
            outcome = self.reconciler.run(self.manifests.policies, self.manifests.pods)
            complete = outcome.complete
            if outcome.actions:
                seconds = round(time.monotonic() - start, 4)
                log.info("pass", extra={"actions": outcome.actions, "seconds": seconds, "complete": complete})
        except KernelError as error:
            log.warning("pass failed", extra={"error": str(error)})
            self._reconnect()
            complete = False
        if complete and not self._settled:
            self.pins.remove_other_builds(self.build)  # no filter runs them any more
            self._settled = True
        self.schedule.started(start, complete=complete)

    def _reconnect(self) -> None:
        """A connection on which something was lost may stay confused: the next pass has a new one."""
        self.connection.close()
        self.connection = connect()
        self.own_ports.add(self.connection.portid)
        self.reconciler.view = View(self.connection)
        self.reconciler.filters = Filters(self.connection)


class _woken_by_signals:  # noqa: N801 - reads as a function
    """A socket that becomes readable on SIGTERM and SIGINT, which set ``stopping``."""

    def __init__(self, agent: Standalone) -> None:
        self._agent = agent
        self._ours, self._theirs = socket.socketpair()

    def __enter__(self) -> socket.socket:
        self._theirs.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        return self._ours

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._agent.stopping = True

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous)
        self._ours.close()
        self._theirs.close()


def run(folder: Path, pins: Pins, slots: int) -> None:
    """Runs the standalone agent until it is told to stop.

    Raises SpecError when there is no such folder, LockedError when another agent runs, LoadError,
    UnsupportedError and KernelError.
    """
    if not folder.is_dir():
        raise SpecError(str(folder), (Problem("", None, "is not a folder; --manifests names one"),))
    locks = Locks.of(pins)
    with ExitStack() as stack:
        stack.enter_context(locks.only_agent())
        # Watched before it is read, so that nothing falls between.
        watch = stack.enter_context(closing(FolderWatch(folder)))
        connection = connect()
        own_ports = {connection.portid}
        monitor = stack.enter_context(closing(Monitor(ignore=own_ports)))
        view = View(connection)
        with ThreadPoolExecutor(1) as loader:  # compiles on another CPU while the network is read
            loading = loader.submit(load_or_keep, pins, slots)
            view.refresh()
            build, refused = loading.result()
        if refused:
            log.error("program not loaded; going on with the one before", extra={"error": refused})
        opened = stack.enter_context(Slots(pins))
        programs = stack.enter_context(closing(Programs(pins, build)))
        log.info("started", extra={"folder": str(folder), "pins": str(pins.folder), "build": build})
        reconciler = Reconciler(view, Filters(connection), opened, programs, locks)
        agent = Standalone(Folder(folder), watch, monitor, connection, own_ports, reconciler, pins, build)
        try:
            agent.run()
        finally:
            agent.connection.close()
    log.info("stopped; limits stay in force")
