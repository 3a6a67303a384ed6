"""Locks between processes: one agent, and one writer of slots and filters at a time.

The kernel releases these flock(2) locks when the process ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tokenbucket.bpf.pins import Pins
from tokenbucket.errors import TokenBucketError

FOLDER = Path("/run/tokenbucket")


class LockedError(TokenBucketError):
    """Another process holds the lock."""


@dataclass(frozen=True, slots=True)
class Locks:
    """The locks of a pin folder."""

    name: str
    folder: Path = FOLDER

    @classmethod
    def of(cls, pins: Pins) -> Locks:
        """Return the locks of these pins."""
        return cls(quote(str(pins.root), safe=""))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for writing slots and filters. Waits for the lock."""
        fd = self._open("slots")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def only_agent(self) -> Iterator[None]:
        """Hold the lock of the only agent. Raises LockedError if another agent runs."""
        fd = self._open("agent")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode().strip()
            os.close(fd)
            where = f"pid {holder} in its PID namespace"
            raise LockedError(f"{self.folder}: another agent is running ({where}); stop it first") from error
        try:
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(fd)

    def _open(self, what: str) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return os.open(self.folder / f"{self.name}.{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
