"""Makes sure that this build of the program is loaded: starts the loader only if it is not.

What was loaded before keeps running when the new build does not compile or is refused.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tokenbucket.bpf.pins import Pins, Sizes, build_of, mount_bpffs, source_folder
from tokenbucket.errors import LoadError

LOAD_TIMEOUT_S = 300
"""A busy node may take minutes for what a second is enough for elsewhere."""
_ERROR_LINES = 8
_DEFAULT = Sizes()


def ensure_loaded(pins: Pins, sizes: Sizes = _DEFAULT, source: Path | None = None) -> str:
    """Loads this build unless it is loaded. Returns its name.

    ``sizes`` are those of maps that are not there yet; existing ones keep their size.
    Raises LoadError with the relevant lines of the compiler's or verifier's output.
    """
    source = source or source_folder()
    build = build_of(source)
    mount_bpffs()
    pinned_slots = pins.check_maps()
    if pinned_slots is not None and pins.has_build(build):
        return build
    _run_loader(source, pins, replace(sizes, slots=pinned_slots or sizes.slots))
    if pins.check_maps() is None or not pins.has_build(build):
        raise LoadError(f"{pins.folder}: the loader left no complete set of pins")
    return build


def load_or_keep(pins: Pins, sizes: Sizes = _DEFAULT, source: Path | None = None) -> tuple[str, str]:
    """As :func:`ensure_loaded`, but goes on with the build that was loaded last when this one is refused.

    Returns the name of the build, and why it is not this one, empty if it is. Raises LoadError when none is
    loaded or the maps are not ours.
    """
    try:
        return ensure_loaded(pins, sizes, source), ""
    except LoadError as error:
        build = pins.last_build()
        if build is None or pins.check_maps() is None:
            raise
        return build, str(error)


def _run_loader(source: Path, pins: Pins, sizes: Sizes) -> None:
    isolated = ["-I"] if sys.flags.isolated else []
    arguments = [str(source), str(pins.root), str(sizes.slots), str(sizes.peers)]
    command = [sys.executable, *isolated, "-m", "tokenbucket.bpf.loader", *arguments]
    package_root = str(Path(__file__).parents[2])
    try:
        result = subprocess.run(  # noqa: S603 - our own module
            command,
            cwd=package_root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"load {source}: no result after {LOAD_TIMEOUT_S} s") from error
    if result.returncode != 0:
        raise LoadError(f"load {source}: {_cause(result.returncode, result.stdout + result.stderr)}")


def _cause(status: int, output: str) -> str:
    """Why the loader failed; LLVM ends a process that it does not like by a signal."""
    ended = f"the loader was ended by {signal.Signals(-status).name}; " if status < 0 else ""
    return ended + digest(output)


def digest(output: str) -> str:
    """The lines of a compiler's or verifier's output that say what is wrong, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror:", line)]
    shown = errors[:_ERROR_LINES] if errors else lines[-_ERROR_LINES:]
    omitted = len(lines) - len(shown)
    return " | ".join(shown) + (f" ({omitted} lines omitted)" if omitted else "")
