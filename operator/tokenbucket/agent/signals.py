"""SIGTERM and SIGINT as something to be polled."""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Self


class StopSignals:
    """Readable once a signal asks for the end. Use as a context manager, in the main thread."""

    def __init__(self) -> None:
        self.stopping = False
        self._ours, self._theirs = socket.socketpair()

    def __enter__(self) -> Self:
        self._theirs.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        return self

    def fileno(self) -> int:
        """Return the file descriptor to poll."""
        return self._ours.fileno()

    def drain(self) -> None:
        """Read the bytes that made it readable."""
        self._ours.recv(64)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopping = True

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous)
        self._ours.close()
        self._theirs.close()
