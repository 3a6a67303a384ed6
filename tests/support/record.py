"""Run a test command of a make target, and record its result: ``record COMPONENT VERSION COMMAND...``.

Nothing is recorded without ``RECORD=1``. A line ``release: 3.12.1`` of the output names the exact version,
and the last line of pytest is the summary.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from tests.support import results

_RELEASE = re.compile(r"^release: (\S+)$")
_SUMMARY = re.compile(r"^=*\s*(\d+ (?:passed|failed|error).* in [\d.]+s)")


def run(command: Sequence[str]) -> tuple[int, list[str]]:
    """Run a command, and show its output. Return its status and output."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return running.returncode, lines


def last(pattern: re.Pattern[str], lines: Sequence[str], default: str) -> str:
    """Return the last match of a pattern that has one group."""
    return next((found[1] for line in reversed(lines) if (found := pattern.match(line))), default)


def main(name: str, version: str, *command: str) -> int:
    """Return the exit status of the command."""
    if not results.is_wanted():
        os.execvp(command[0], command)
    [component] = [each for each in results.components() if each.name == name]
    version = component.versions[-1] if version == "newest" else version
    status, lines = run(command)
    release, summary = last(_RELEASE, lines, version), last(_SUMMARY, lines, f"exit status {status}")
    results.record((name, version), release, component.command_of(version), summary, passed=status == 0)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
