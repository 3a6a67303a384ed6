"""Run a test command of a make target, and record its result in one cell or several.

``record TARGET COMPONENT[,COMPONENT...] VERSION COMMAND...``; the page shows TARGET.
The version ``here`` is the version of this machine. Nothing is recorded without ``RECORD=1``.
A line ``release: 3.12.1`` of the output names the exact version, and each last line of pytest is a summary.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.support import results
from tests.support.results import Component

_RELEASE = re.compile(r"^release: (\S+)$")
_SUMMARY = re.compile(r"^=*\s*(\d+ [a-z]+(?:, \d+ [a-z]+)*) in [\d.]+s")


def _bcc() -> str:
    query = ("dpkg-query", "--show", "--showformat", "${Version}", "python3-bpfcc")
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout


HERE: Mapping[str, Callable[[], str]] = {
    "Architecture": lambda: {"x86_64": "x86-64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    ),
    "Kernel": platform.release,
    "bcc": _bcc,
}
"""How to read the version of this machine."""


def run(command: Sequence[str]) -> tuple[int, list[str]]:
    """Run a command, and show its output. Return its status and output."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return running.returncode, lines


def found(pattern: re.Pattern[str], lines: Sequence[str]) -> list[str]:
    """Return each match of a pattern that has one group."""
    return [match[1] for line in lines if (match := pattern.match(line))]


def cell(component: Component, release: str) -> str | None:
    """Return the version of the component that a release belongs to, as 6.12 for 6.12.117."""
    matching = (each for each in component.versions if re.match(rf"{re.escape(each)}(?![0-9])", release))
    return next(matching, None)


def main(target: str, names: str, version: str, *command: str) -> int:
    """Return the exit status of the command."""
    if not results.is_wanted():
        os.execvp(command[0], command)
    status, lines = run(command)
    summaries = found(_SUMMARY, lines)
    passed = status == 0 and any(" passed" in each for each in summaries)
    summary = "; ".join(summaries) or f"exit status {status}"
    for component in results.components():
        if component.name in names.split(","):
            release = HERE[component.name]() if version == "here" else [version, *found(_RELEASE, lines)][-1]
            of_cell = cell(component, release) if version == "here" else version
            if of_cell:
                results.record((component.name, of_cell), release, target, summary, passed=passed)
            else:
                print(f"record: {component.name} {release}: no cell in {results.CELLS.name}; not recorded")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
