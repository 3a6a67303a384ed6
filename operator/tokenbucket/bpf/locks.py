"""Locks between processes: one agent at a time, and one writer of slots and filters at a time.

Locks of the kernel (flock): they end with the process that holds them, however it ends.
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
    """Another process holds a lock that is not waited for."""


@dataclass(frozen=True, slots=True)
class Locks:
    """The locks of one folder of pins."""

    name: str
    folder: Path = FOLDER

    @classmethod
    def of(cls, pins: Pins) -> Locks:
        """The locks that go with these pins."""
        return cls(quote(str(pins.root), safe=""))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the right to write slots and filters; waits for it."""
        fd = self._open("slots")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def only_agent(self) -> Iterator[None]:
        """Holds the right to be the agent. Raises LockedError when another one runs."""
        fd = self._open("agent")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 32).decode().strip()
            os.close(fd)
            where = f"as pid {holder} of the host or of its container"
            raise LockedError(f"{self.folder}: another agent runs, {where}; stop it first") from error
        try:
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(fd)

    def _open(self, what: str) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return os.open(self.folder / f"{self.name}.{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
