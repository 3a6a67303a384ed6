"""The one exception of this package: which part failed, why, and the end of its log."""

from __future__ import annotations

from pathlib import Path

_TAIL_LINES = 40


class ClusterError(Exception):
    """A part of the cluster could not be built, started or removed."""

    def __init__(self, part: str, reason: str, output: str = "", log: Path | None = None) -> None:
        self.part = part
        self.reason = reason
        self.output = output
        super().__init__("\n".join(_lines(part, reason, output, log)))


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last ``lines`` lines of ``text``."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def read_tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last ``lines`` lines of the file ``log``; empty when there is no such file."""
    try:
        return tail(log.read_text(errors="replace"), lines)
    except FileNotFoundError:
        return ""


def _lines(part: str, reason: str, output: str, log: Path | None) -> list[str]:
    lines = [f"{part}: {reason}"]
    if output:
        lines += ["--- output", tail(output)]
    if log is not None:
        lines += [f"--- end of {log}", read_tail(log) or "(empty)"]
    return lines
