"""Which versions the documents claim, and the recorded result of the last run on each."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

CELLS = Path(__file__).parent / "cells.toml"
RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Result:
    """The end of one run."""

    release: str
    """The exact version, as ``3.12.1`` of ``3.12``."""
    date: str
    command: str
    passed: bool
    summary: str
    """As ``1232 passed, 3 skipped``."""
    commit: str = ""
    """As ``01cff5e``, or ``01cff5e-dirty`` with changes that are not committed."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the platform, and its versions that the documents claim."""

    name: str
    proves: str
    command: str
    versions: tuple[str, ...]
    commands: Mapping[str, str] = field(default_factory=dict)
    """Other commands of single versions."""

    def command_of(self, version: str) -> str:
        """Return the command that tests a version."""
        return self.commands.get(version, self.command).format(version=version)


Key = tuple[str, str]
"""Name of the component, and version."""


def components() -> list[Component]:
    """Return the components in the order of the page."""
    entries = tomllib.loads(CELLS.read_text())["component"]
    return [Component(**entry | {"versions": tuple(entry["versions"])}) for entry in entries]


def read() -> dict[Key, Result]:
    """Return the recorded results."""
    return {
        (name, version): Result(**result)
        for name, versions in json.loads(RESULTS.read_text()).items()
        for version, result in versions.items()
    }


def is_wanted() -> bool:
    """Return whether runs are recorded: ``RECORD=1``, and not a selection of the tests."""
    return os.environ.get("RECORD") == "1" and not os.environ.get("ARGS")


def commit() -> str:
    """Return the commit, with ``-dirty`` if a file other than the record of results differs from it."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(("git", *words), cwd=CELLS.parent, check=False, capture_output=True, text=True)

    changed = git("diff", "--quiet", "HEAD", "--", ":/", f":!{RESULTS.name}").returncode
    return git("rev-parse", "--short=10", "HEAD").stdout.strip() + "-dirty" * bool(changed)


def record(key: Key, release: str, command: str, summary: str, *, passed: bool) -> None:
    """Record the end of a run of today, if runs are recorded. Raises KeyError for an unknown cell."""
    if is_wanted():
        date = dt.datetime.now(dt.UTC).date().isoformat()
        write(key, Result(release, date, command, passed=passed, summary=summary, commit=commit()))


def write(key: Key, result: Result) -> None:
    """Record a result in place of an earlier one of the same cell. Raises KeyError for an unknown cell.

    Other runs can record at the same time.
    """
    name, version = key
    if version not in {each.name: each for each in components()}[name].versions:
        raise KeyError(f"{CELLS.name}: no cell {name} {version}")
    with RESULTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        document = json.load(file)
        document.setdefault(name, {})[version] = asdict(result)
        file.seek(0)
        file.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        file.truncate()
