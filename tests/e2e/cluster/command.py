"""Runs a program to its end and explains its failure."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClusterError


def run(
    argv: Sequence[str | Path],
    *,
    part: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run ``argv`` and return its standard output. ``part`` names it in a failure.

    Raises ClusterError with the end of its output when it cannot be started, fails or takes too long.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=env,
            cwd=cwd,
            input=stdin if stdin is not None else "",
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(part, f"{error.filename}: not found (see packages.txt)") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(part, f"{_brief(words)}: no end after {timeout_s} s", _decoded(error)) from error
    if done.returncode != 0:
        raise ClusterError(part, f"{_brief(words)}: exit status {done.returncode}", done.stdout + done.stderr)
    return done.stdout


def _brief(words: Sequence[str], limit: int = 200) -> str:
    text = " ".join(words)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _decoded(error: subprocess.TimeoutExpired) -> str:
    parts = (error.stdout, error.stderr)
    return "".join(part.decode(errors="replace") if isinstance(part, bytes) else part or "" for part in parts)
