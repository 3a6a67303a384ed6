"""Processes by pid *and* start time, so that one which got a dead one's pid is never taken for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One process, once and for all (until the machine restarts: see ``boot``)."""

    pid: int
    start_ticks: int
    """Clock ticks from boot to its start."""
    boot: str
    """Identity of the boot it ran in."""

    def alive(self) -> bool:
        """Return whether it still runs; a zombie does not."""
        return _read(self.pid) == self


def boot_id() -> str:
    """Return identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process | None:
    """Return the process that has ``pid`` now, or None."""
    return _read(pid)


def children(process: Process) -> list[Process]:
    """Return its direct children that still run."""
    if not process.alive():
        return []
    found = (_read(pid) for pid in all_pids() if _parent(pid) == process.pid)
    return [child for child in found if child is not None]


def tree(process: Process) -> list[Process]:
    """Return the process and all that descend from it, parents first."""
    found = [process]
    for parent in found:
        found += children(parent)
    return found


def all_pids() -> Iterator[int]:
    """Return every process at this moment."""
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def kill(process: Process) -> None:
    """Send KILL if it is still the same process."""
    if process.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def reap(process: Process) -> None:
    """Reap a dead child of this process. Others belong to their parents."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def wait_gone(process: Process, timeout_s: float) -> bool:
    """Wait until it has ended; False when it is still there after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while process.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _read(pid: int) -> Process | None:
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), boot_id())


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Return fields of /proc/PID/stat from the third, the state, on: the name before it may hold spaces."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
