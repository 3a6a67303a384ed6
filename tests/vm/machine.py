"""Boot a kernel in a virtual machine that runs programs of this repository in sequence, and then ends."""

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
"""One nanosecond per instruction, so that load on the host does not slow the machine's clock."""
_FILES = "-virtfs local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap"
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(_ROOT),
    # A skip must not hide a feature that these kernels have.
    "REQUIRE": "bpf,netns,sch_fq,sch_netem",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a rung in a machine."""

    kernel: str
    """The release, such as ``6.12.107+deb13-amd64``, or the series if the kernel did not boot."""
    rung: str
    passed: bool
    output: str
    """The output of pytest."""
    console: str
    """The end of the kernel log."""

    @property
    def summary(self) -> list[str]:
        """Return the last line of pytest, followed by the skipped tests and their reasons."""
        lines = self.output.rstrip().splitlines() or ["pytest did not run"]
        skipped = [line for line in lines if line.startswith(f"{self.rung}: ")]
        return [lines[-1].strip(" ="), *skipped]

    def explain(self) -> str:
        """Return the output to read after a failure."""
        return (
            f"{self.rung} rung, kernel {self.kernel}\n--- pytest\n{tail(self.output, 200)}\n"
            f"--- end of the console\n{self.console}"
        )


def run_rungs(kernel: Kernel, rungs: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Ended]:
    """Run pytest in a machine with this kernel, once for each rung, with the arguments of the rung.

    ``folder`` keeps the output of pytest and of the machine. Raise ClusterError if the kernel is missing.
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
    """Run Python once for each name, with its arguments, within one time limit. See :func:`run_rungs`.

    With ``instruction_clock``, the machine's clock advances by one nanosecond per instruction, and while the
    machine is idle.
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
        # The machine did not boot. Boot again with output, to show the cause.
        _run(machine(["true"], verbose=True), folder / "console", timeout_s)
    return {name: _ended(kernel, name, folder) for name in programs}


def _run(argv: Sequence[str], console: Path, timeout_s: float) -> None:
    """Run the machine until it ends. The machine also ends with this process."""
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
