"""Define the exit statuses of the command line. The numbers are part of the interface."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit status of a command."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    UNSUPPORTED = 3
    NOT_FOUND = 4

    @property
    def meaning(self) -> str:
        """Return the description of the status."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, a retry may succeed",
    ExitCode.INVALID: "wrong usage or an invalid document",
    ExitCode.UNSUPPORTED: "this machine lacks something, or the program does not load",
    ExitCode.NOT_FOUND: "no such pod or interface is limited",
}
