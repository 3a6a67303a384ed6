"""Make SIGTERM and SIGINT pollable."""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Self


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
