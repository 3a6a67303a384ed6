"""Locks between processes: one agent, and one writer of slots and filters at a time.

A lock must not separate from the state that it protects: a process with another /run, or with a mount
namespace of its own, would find a free lock and the same state. The state has two parts, so there are two
locks of the agent:

- The pins. flock(2) works on a directory of a bpffs, and all mounts of the same bpffs share it. Its parent is
  removed together with the pins. A process that waited for a removed directory opens the new one.
- The filters on the interfaces of the network namespace, also those of an agent with another bpffs. An
  abstract Unix socket has a name that is unique in a network namespace.

The kernel releases both when the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.bpf.pins import Pins, mount_bpffs
from tokenbucket.errors import KernelError, TokenBucketError

log = logging.getLogger(__name__)

_SOCKET = "\0tokenbucket-agent"
_QUEUED = 4096
"""Agents that may ask who has the name. It accepts no connection."""
_POLL_S, _REPORT_S, _REPORT_AGAIN_S = 0.05, 1.0, 60.0


class LockedError(TokenBucketError):
    """Another process holds the lock."""


class InterruptedWaitError(TokenBucketError):
    """The process must end while it waits for a lock."""


@dataclass(frozen=True, slots=True)
class Locks:
    """The locks of a pin folder."""

    root: Path
    stopping: Callable[[], bool] = lambda: False
    """Whether the process must end."""

    @classmethod
    def of(cls, pins: Pins, stopping: Callable[[], bool] = lambda: False) -> Locks:
        """Return the locks of these pins."""
        return cls(pins.root, stopping)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for writing slots and filters. Waits for the lock, and reports a wait of a second.

        Raises:
            KernelError: with ENOENT if nothing is pinned.
            InterruptedWaitError: the process must end.
        """
        if not self.root.is_dir():
            raise KernelError("lock", str(self.root), errno.ENOENT)
        with self._locked("slots", self._wait):
            yield

    @contextmanager
    def only_agent(self) -> Iterator[None]:
        """Hold the lock of the only agent. Raises LockedError if another agent runs, and KernelError."""
        mount_bpffs()
        with ExitStack() as stack:
            stack.enter_context(self._locked("agent", _locked_by_another_agent))
            if name := _name_in_network():
                stack.enter_context(name)
            yield

    @contextmanager
    def _locked(self, name: str, wait: Callable[[int, Path, float], None]) -> Iterator[None]:
        path, start = self.root / "locks" / name, time.monotonic()
        with ExitStack() as stack:
            while True:
                fd = _open(path)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    try:
                        wait(fd, path, start)
                    finally:
                        os.close(fd)
                    continue
                stack.callback(os.close, fd)
                if _is_at(fd, path):
                    break
            yield

    def _wait(self, fd: int, path: Path, start: float) -> None:
        """Wait a moment for the holder of a lock. Reports the wait after a second, and then every minute."""
        if self.stopping():
            raise InterruptedWaitError(f"{path}: locked by {_holder(fd)}")
        waited_s = time.monotonic() - start
        since_report_s = (waited_s - _REPORT_S) % _REPORT_AGAIN_S
        if waited_s >= _REPORT_S and since_report_s < _POLL_S:
            log.warning("waiting for a lock", extra={"lock": str(path), "holder": _holder(fd)})
        time.sleep(_POLL_S)


def _locked_by_another_agent(fd: int, path: Path, _: float) -> None:
    raise LockedError(f"{path.parent.parent}: another agent is running ({_holder(fd)}); stop it first")


def _open(path: Path) -> int:
    """Open a directory, and create it. Other users must not be able to open it, and so to lock it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.mkdir(exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", str(path), error.errno or errno.EIO) from error


def _is_at(fd: int, path: Path) -> bool:
    """Return whether a path leads to an open directory, which another process may have removed."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _holder(fd: int) -> str:
    """Return the process that holds a lock, as far as this process sees it."""
    inode = str(os.fstat(fd).st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and "->" not in fields and fields[5].split(":")[-1] == inode:
            return f"pid {fields[4]}"
    return "a process in another PID namespace"


def _name_in_network() -> socket.socket | None:
    """Take the agent's name in the network namespace. Raises LockedError if another agent has it.

    Any process of the namespace can take the name. One that is not root cannot be an agent, and is ignored.
    """
    named = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        named.bind(_SOCKET)
        named.listen(_QUEUED)
    except OSError:
        named.close()
        if (pid := _agent_in_network()) is None:
            log.warning("name of the agent taken by a process that is not root")
            return None
        where = f"pid {pid}" if pid else "a process in another PID namespace"
        raise LockedError(
            f"network namespace: another agent is running ({where}), with other pins; stop it first"
        ) from None
    return named


def _agent_in_network() -> int | None:
    """Return the process of root that has the agent's name; 0 if it has no number here, ``None`` if none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(_SOCKET)
        except OSError:
            return None
        peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=iII"))
    pid, uid, _ = struct.unpack("=iII", peer)
    return pid if uid == 0 else None
