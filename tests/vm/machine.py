"""One boot of a kernel: the machine runs programs of this repository, one after the other, and ends."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import virtual_machine
from cluster.errors import read_tail, tail
from tests.vm.kernels import Kernel

_ROOT = Path(__file__).parents[2]
_GUEST = Path(__file__).parent / "guest.sh"
_TIMEOUT_S = 3600
_MEMORY = "3G"
_INSTRUCTION_CLOCK = "-icount shift=0,sleep=off"
"""A nanosecond for each instruction, so that a busy machine outside makes nothing in it take longer."""
_FILES = "-virtfs local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap"
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(_ROOT),
    # What these kernels have must not be missed by a skip.
    "REQUIRE": "bpf,netns,sch_fq,sch_netem",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rung ended in a machine."""

    kernel: str
    """The release, as ``6.12.107+deb13-amd64``, or the series if it did not come up."""
    rung: str
    passed: bool
    output: str
    """What pytest wrote."""
    console: str
    """The end of what the kernel said."""

    @property
    def summary(self) -> list[str]:
        """The last line of pytest, then the single tests that were skipped, and why."""
        lines = self.output.rstrip().splitlines() or ["pytest did not run"]
        skipped = [line for line in lines if line.startswith(f"{self.rung}: ")]
        return [lines[-1].strip(" ="), *skipped]

    def explain(self) -> str:
        """What to read when it did not pass."""
        return (
            f"{self.rung} rung, kernel {self.kernel}\n--- pytest\n{tail(self.output, 200)}\n"
            f"--- end of the console\n{self.console}"
        )


def run_rungs(kernel: Kernel, rungs: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Ended]:
    """Runs pytest, in a machine with that kernel, once for each rung, with its arguments.

    ``folder`` keeps what it and the machine wrote. Raises ClusterError when such a kernel is not to be had.
    """
    tests = {rung: ("-m", "pytest", *arguments) for rung, arguments in rungs.items()}
    return run_programs(kernel, tests, folder, _TIMEOUT_S)


def run_programs(
    kernel: Kernel,
    programs: Mapping[str, Sequence[str]],
    folder: Path,
    timeout_s: float,
    *,
    instruction_clock: bool = False,
) -> dict[str, Ended]:
    """Runs Python once for each name, with its arguments, for so long in all; as :func:`run_rungs`.

    With ``instruction_clock`` its time goes by its instructions, a nanosecond each, and by its waiting.
    """
    for name, arguments in programs.items():
        (folder / f"{name}.args").write_text("".join(f"{word}\n" for word in arguments))
    environment = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
    command = ["env", "--ignore-environment", *environment, _GUEST, _ROOT, sys.executable, folder]
    booted = virtual_machine.debian_kernel(kernel.series, kernel.suite)
    # With a second processor, emulation takes more than twice the time of both.
    machine = functools.partial(
        virtual_machine.argv,
        booted,
        [folder],
        readable=[_ROOT],
        memory=_MEMORY,
        devices=f"{_FILES} {_INSTRUCTION_CLOCK}" if instruction_clock else _FILES,
        processors=1,
    )
    _run(machine(command), folder / "console", timeout_s)
    if not (folder / "release").exists():
        # It did not come up: once more, to see why.
        _run(machine(["true"], verbose=True), folder / "console", timeout_s)
    return {name: _ended(kernel, name, folder) for name in programs}


def _run(argv: Sequence[str], console: Path, timeout_s: float) -> None:
    """Runs the machine to its end. Whatever ends this process ends it too."""
    contained = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", *argv]
    with console.open("wb") as file:
        try:
            subprocess.run(
                contained,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            file.write(f"\nended after {timeout_s} s\n".encode())


def _ended(kernel: Kernel, rung: str, folder: Path) -> Ended:
    return Ended(
        kernel=_read(folder / "release") or kernel.series,
        rung=rung,
        passed=_read(folder / f"{rung}.status") == "0",
        output=_read(folder / f"{rung}.log"),
        console=f"{read_tail(folder / 'dmesg')}\n{read_tail(folder / 'console')}".strip(),
    )


def _read(file: Path) -> str:
    return file.read_text(errors="replace").strip() if file.exists() else ""
