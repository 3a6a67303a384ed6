"""Exit statuses of the command line. They are part of its interface."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a command's exit status says."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    UNSUPPORTED = 3
    NOT_FOUND = 4

    @property
    def meaning(self) -> str:
        """The status in words."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, may be tried again",
    ExitCode.INVALID: "wrong usage or an invalid document",
    ExitCode.UNSUPPORTED: "this machine lacks something, or the program does not load",
    ExitCode.NOT_FOUND: "no such pod or interface is limited",
}
