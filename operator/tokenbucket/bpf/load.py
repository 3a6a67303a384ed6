"""Loads this build of the program in a child process, unless it is loaded.

If the build does not compile or the verifier rejects it, the programs that were loaded before continue.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tokenbucket.bpf.pins import Pins, Sizes, build_of, mount_bpffs, source_folder
from tokenbucket.errors import LoadError

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 300
"""Loading takes about a second, and minutes on an overloaded node."""
_LONG_S, _POLLS_PER_S = 10, 10
_ERROR_LINES = 8
_DEFAULT = Sizes()


def ensure_loaded(
    pins: Pins,
    sizes: Sizes = _DEFAULT,
    source: Path | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> str:
    """Load this build unless it is loaded. Return its name.

    ``sizes`` are those of new maps; existing maps keep their sizes. The wait ends when ``stopping`` returns
    that the process must end.

    Raises:
        LoadError: with the relevant lines of the output of compiler or verifier. Existing pins stay.
    """
    source = source or source_folder()
    build = build_of(source)
    mount_bpffs()
    pinned_slots = pins.check_maps()
    if pinned_slots is not None and pins.has_build(build):
        return build
    _run_loader(source, pins, replace(sizes, slots=pinned_slots or sizes.slots), stopping)
    if pins.check_maps() is None or not pins.has_build(build):
        raise LoadError(f"{pins.folder}: the loader did not pin all maps and programs; start again")
    return build


def load_or_keep(
    pins: Pins,
    sizes: Sizes = _DEFAULT,
    source: Path | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[str, str]:
    """Load this build, or keep the last one that was loaded if this one fails.

    Returns the name of the build, and the error of this build, which is empty on success.

    Raises:
        LoadError: no build is loaded, or a pinned map does not match this layout version.
    """
    try:
        return ensure_loaded(pins, sizes, source, stopping), ""
    except LoadError as error:
        build = pins.last_build()
        if build is None or pins.check_maps() is None:
            raise
        return build, str(error)


def _run_loader(source: Path, pins: Pins, sizes: Sizes, stopping: Callable[[], bool]) -> None:
    isolated = ["-I"] if sys.flags.isolated else []
    arguments = [str(source), str(pins.root), str(sizes.slots), str(sizes.peers)]
    command = [sys.executable, *isolated, "-m", "tokenbucket.bpf.loader", *arguments]
    package_root = str(Path(__file__).parents[2])
    with subprocess.Popen(  # noqa: S603 - a module of this package
        command,
        cwd=package_root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        output = _output(process, source, stopping)
    if process.returncode != 0:
        raise LoadError(f"load {source}: {_cause(process.returncode, output)}")


def _output(process: subprocess.Popen[str], source: Path, stopping: Callable[[], bool]) -> str:
    """Wait for the loader, and return its output. Reports a long wait, which ends with the process."""
    for waited in range(LOAD_TIMEOUT_S * _POLLS_PER_S):
        try:
            output, _ = process.communicate(timeout=1 / _POLLS_PER_S)
        except subprocess.TimeoutExpired:
            if stopping():
                process.kill()
                raise LoadError(f"load {source}: interrupted, because the process ends") from None
            if waited == _LONG_S * _POLLS_PER_S:
                log.warning("loading the program takes long", extra={"source": str(source)})
        else:
            return output
    process.kill()
    raise LoadError(f"load {source}: no result after {LOAD_TIMEOUT_S} s")


def _cause(status: int, output: str) -> str:
    """Return the cause of a failure of the loader. LLVM aborts the process on some errors."""
    ended = f"the loader was killed by {signal.Signals(-status).name}; " if status < 0 else ""
    return ended + digest(output)


def digest(output: str) -> str:
    """Return the error lines of the output of compiler or verifier as one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror:", line)]
    shown = errors[:_ERROR_LINES] if errors else lines[-_ERROR_LINES:]
    omitted = len(lines) - len(shown)
    return " | ".join(shown) + (f" ({omitted} lines omitted)" if omitted else "")
