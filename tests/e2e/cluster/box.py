"""Boxes: sets of namespaces that live and die with their first process.

The root box has network, mount and PID namespaces of its own; each node is a box inside it. All processes of
the cluster are in the root box, so killing its first process ends them all, and the kernel then removes their
network namespaces and mounts, none of which can be seen from outside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .command import run
from .components import START, Components
from .errors import ClusterError
from .identity import Process, all_pids, children, identify, kill, reap, tree, wait_gone

_UNSHARE = (
    "unshare",
    "--mount",
    "--net",
    "--uts",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
)
_START_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Box:
    """A running box. ``folder`` holds pid, log and exit status of each of its components."""

    name: str
    init: Process
    folder: Path
    env: Mapping[str, str]

    def argv(self, command: Sequence[str | Path]) -> list[str]:
        """Return a command line, valid outside, that runs ``command`` in all namespaces of the box."""
        return [
            "nsenter",
            f"--target={self.init.pid}",
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            "--",
            *map(str, command),
        ]

    def network_argv(self, command: Sequence[str | Path]) -> list[str]:
        """Return the same, only in its network namespace, with the files and pids of outside."""
        return ["nsenter", f"--net=/proc/{self.init.pid}/ns/net", "--", *map(str, command)]

    def run(self, command: Sequence[str | Path], *, part: str = "", timeout_s: float | None = None) -> str:
        """Run a command in the box. Return its output. Raises ClusterError if it fails."""
        return run(self.argv(command), part=part or self.name, env=self.env, timeout_s=timeout_s)

    def ip(self, *batch: str) -> None:
        """Run lines of ``ip -batch`` in the network namespace of the box."""
        lines = "".join(f"{line}\n" for line in batch)
        run(self.network_argv(["ip", "-batch", "-"]), part=f"{self.name} network", stdin=lines)

    def start(self, component: str, command: Sequence[str | Path], *, network: bool = True) -> None:
        """Start a component that outlives this process; without ``network``, in the network of outside."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = self.argv([START, self.folder, component, *command])
        run(
            [word for word in argv if network or word != "--net"],
            part=f"{self.name}/{component}",
            env=self.env,
        )

    def stop(self, component: str) -> None:
        """Kill a component with its children, and wait until they are gone, on record too."""
        for process in tree(self.component(component)):
            kill(process)
            if not wait_gone(process, _END_TIMEOUT_S):
                raise ClusterError(f"{self.name}/{component}", f"process {process.pid} did not end")
        while self.components.exit_status(component) is None:
            time.sleep(0.01)

    @property
    def components(self) -> Components:
        """The components that were started in the box."""
        return Components(self.name, self.folder)

    def component(self, name: str) -> Process:
        """Return the process of a component, with its outer pid. Raises ClusterError if it does not run."""
        inside = int((self.folder / f"{name}.pid").read_text())
        process = _from_inside(self.init, inside)
        if process is None:
            raise ClusterError(f"{self.name}/{name}", "does not run", log=self.components.log(name))
        return process


@dataclass(frozen=True, slots=True)
class Guardian:
    """The process outside a root box that holds it. It is prepared until ``open_root`` starts the box."""

    process: Process
    begin: int
    """File descriptor for the line that it waits for."""


def start_guardian(pause: Path, env: Mapping[str, str]) -> Guardian:
    """Prepare a root box, which waits for a line on its standard input. The caller can record it first."""
    script = 'read -r go || exit 1; exec "$@" </dev/null'
    reading, writing = os.pipe()
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    files = [(os.POSIX_SPAWN_DUP2, reading, 0), *nowhere]
    argv = ["sh", "-c", script, "sh", *_UNSHARE, str(pause)]
    pid = os.posix_spawn("/bin/sh", argv, dict(env), file_actions=files, setsid=True)
    os.close(reading)
    process = identify(pid)
    if process is None:
        raise ClusterError("root box", "ended at once")
    return Guardian(process, writing)


def open_root(guardian: Guardian, name: str, folder: Path, env: Mapping[str, str]) -> Box:
    """Start the prepared root box."""
    os.write(guardian.begin, b"go\n")
    os.close(guardian.begin)
    return Box(name, _first_process(guardian.process, name), folder, env)


def end_root(guardian: Process, first: Iterable[Process] = ()) -> None:
    """Kill a root box by its guardian, and wait until that and the boxes' ``first`` processes are gone: all
    others are gone then. Raises ClusterError when one stays.
    """
    processes = [*children(guardian), guardian, *first]
    for process in processes:
        kill(process)
    for process in processes:
        if not wait_gone(process, _END_TIMEOUT_S):
            raise ClusterError("root box", f"process {process.pid} did not end")
    reap(guardian)


def open_box(root: Box, name: str, folder: Path, pause: Path) -> Box:
    """Open a box inside ``root``."""
    root.start(name, [*_UNSHARE, pause])
    return Box(name, _first_process(root.component(name), name), folder, root.env)


def _first_process(parent: Process, name: str) -> Process:
    """Return the first process of a box that ``parent`` (an ``unshare``) creates, once it runs."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        for child in children(parent):
            if Path(_executable(child.pid)).name == "pause":
                return child
        time.sleep(0.01)
    raise ClusterError(name, "its namespaces were not made (needs root, and unshare of util-linux)")


def _from_inside(init: Process, inside: int) -> Process | None:
    """Return the process with the pid ``inside`` in the PID namespace of ``init``."""
    namespace = _namespace(init.pid)
    for pid in all_pids():
        if _namespace(pid) == namespace and _innermost_pid(pid) == inside:
            return identify(pid)
    return None


def _namespace(pid: int) -> str:
    return _link(f"/proc/{pid}/ns/pid")


def _executable(pid: int) -> str:
    return _link(f"/proc/{pid}/exe")


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _innermost_pid(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "NSpid: 0")
    return int(line.split()[-1])
