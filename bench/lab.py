"""What the benchmarks share: a node made of network namespaces, an agent on it, and tables of figures."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.pins import BPFFS, Pins
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.netlink.connection import connect
from tokenbucket.node.view import View

TOKENBUCKET = str(Path(sys.executable).parent / "tokenbucket")
WAIT_S = 300.0
_CLONE_NEWNET = 0x40000000
Found = TypeVar("Found")
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """Moves this thread into a named network namespace, and back: what it opens and starts stays there.

    Only the network changes, unlike with ``ip netns exec``, which hides the bpffs.
    """
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{netns}") as there:  # noqa: PTH123
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def ip(lines: str | Iterable[str], netns: str | None = None) -> None:
    """Runs a batch of ``ip`` commands in one process. Raises CalledProcessError."""
    _batch("ip", lines, netns)


def tc(lines: str | Iterable[str], netns: str) -> None:
    """Runs a batch of ``tc`` commands in one process. Raises CalledProcessError."""
    _batch("tc", lines, netns)


def _batch(tool: str, lines: str | Iterable[str], netns: str | None) -> None:
    text = lines if isinstance(lines, str) else "\n".join(lines)
    command = [tool, *(["-n", netns] if netns else []), "-batch", "-"]
    subprocess.run(command, input=text.encode() + b"\n", check=True, stdout=subprocess.DEVNULL)


def pod_document(name: str, address: str) -> str:
    """A pod of the namespace ``bench`` with the label ``app=bench``."""
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: bench, labels: {{app: bench}}}}\n"
        f"status: {{podIP: {address}}}\n"
    )


def policy_document(
    bits_per_s: int,
    burst_bytes: int | None = None,
    *,
    action: str = "Drop",
    direction: str = "ingress",
) -> str:
    """The one policy, on what all pods receive, or send."""
    burst = f"\n    burst: {{bytes: {burst_bytes}}}" if burst_bytes else ""
    return (
        "apiVersion: tokenbucket.dev/v1alpha1\nkind: TokenBucketPolicy\n"
        "metadata: {name: bench, namespace: bench}\nspec:\n"
        f"  podSelector: {{matchLabels: {{app: bench}}}}\n  {direction}:\n"
        f"    rate: {{bits: {bits_per_s}}}{burst}\n    exceedAction: {action}\n"
    )


class Agent:
    """An agent process. Its log is JSON, with times of the wall clock in whole milliseconds."""

    def __init__(self, node: Node, log: Path, options: Sequence[str]) -> None:
        self._log = log
        with log.open("wb") as output, inside(node.name):
            self.started_at_s = time.time()
            command = [
                TOKENBUCKET,
                "agent",
                "--manifests",
                str(node.manifests),
                "--pins",
                str(node.pins.root),
            ]
            self.process = subprocess.Popen(
                [*command, *options, "--log-format", "json"], stdout=output, stderr=output
            )

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far: all, or one kind of event."""
        complete = self._log.read_text().splitlines(keepends=True)
        parsed = [json.loads(line) for line in complete if line.startswith("{") and line.endswith("\n")]
        return [line for line in parsed if event in {None, line["event"]}]

    def wait_for(self, event: str, after: int = 0, **values: object) -> dict[str, Any]:
        """The first such line with these values behind ``after`` others of the event."""

        def found() -> dict[str, Any] | None:
            lines = self.lines(event)[after:]
            return next((line for line in lines if values.items() <= line.items()), None)

        try:
            return wait_until(found, f"{event!r} in the agent's log")
        except TimeoutError as error:
            raise RuntimeError(f"{error}; the log:\n{self._log.read_text()[-2000:]}") from error

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()


def stamp_s(line: dict[str, Any]) -> float:
    """When a line was logged, in seconds of the wall clock."""
    return datetime.fromisoformat(line["time"]).timestamp()


def warn_if_repaired(agent: Agent, filters: int) -> None:
    """Says so when an agent attached more than it had to: its times then say nothing."""
    repairs = len(agent.lines("attached")) - filters
    if repairs > 0:
        print(
            f"DISTURBED: {repairs} filters were removed by somebody else, such as 'tokenbucket detach --all'"
        )


def wait_until(condition: Callable[[], Found | None], what: str, pause_s: float = 0.02) -> Found:
    """Polls until there is a value. Raises TimeoutError."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        value = condition()
        if value is not None:
            return value
        time.sleep(pause_s)
    raise TimeoutError(f"waited {WAIT_S:.0f} s for {what}")


@dataclass
class Node:
    """A node's network namespace, its pods' namespaces, a folder of manifests, and pins of its own."""

    name: str
    pins: Pins
    folder: Path
    agents: list[Agent] = field(default_factory=list)
    options: tuple[str, ...] = ()
    """Of the agents that are started from now on."""
    _namespaces: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Where the node's namespace has its name."""
        return Path("/run/netns", self.name)

    @property
    def manifests(self) -> Path:
        """The folder that the agent reads."""
        return self.folder / "manifests"

    def add_namespaces(self, *suffixes: str) -> list[str]:
        """Makes namespaces that end with the node. Returns their names."""
        names = [f"{self.name}-{suffix}" for suffix in suffixes]
        self._namespaces += names
        ip(f"netns add {name}" for name in names)
        return names

    def set_up(self) -> None:
        """Makes the node's own namespace, which forwards."""
        self._namespaces.append(self.name)
        ip(f"netns add {self.name}")
        self.manifests.mkdir()
        ip("link set lo up", self.name)
        with inside(self.name):
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path("/proc/sys/net", setting).write_text("1")

    def declare(self, file: str, text: str) -> float:
        """Puts a file in place by a rename. Returns the time just before it, of the monotonic clock."""
        unfinished = self.folder / file
        unfinished.write_text(text)
        before = time.monotonic()
        unfinished.rename(self.manifests / file)
        return before

    def start_agent(self) -> Agent:
        """Starts an agent and does not wait for it."""
        log = self.folder / f"agent-{len(self.agents)}.log"
        self.agents.append(Agent(self, log, self.options))
        return self.agents[-1]

    def filters(self) -> dict[int, tuple[int, int]]:
        """Slot and program id of our filter, by interface of the node. Reads the kernel, not the agent."""
        with connect(self.path) as connection:
            view = View(connection, Tcx(self.pins))
            view.refresh()
            return {
                ifindex: (ours.slot, ours.prog_id)
                for ifindex, filters in view.filters.items()
                for ours in filters.ours
            }

    def remove_pins(self) -> None:
        """Removes the pins and the files of the locks."""
        self.pins.remove()
        locks = Locks.of(self.pins)
        for file in locks.folder.glob(f"{locks.name}.*.lock"):
            file.unlink()

    def close(self) -> None:
        """Ends the agents, and removes namespaces and pins."""
        for agent in self.agents:
            agent.kill()
        # The node goes first, and takes all veths with it at once.
        names = [name for name in self._namespaces if Path("/run/netns", name).exists()]
        ip(f"netns del {name}" for name in names)
        self.remove_pins()


@contextlib.contextmanager
def node(name: str) -> Iterator[Node]:
    """A node, gone at the end, however it comes."""
    unique = f"{name}-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=f"bn-{unique}-") as folder:
        made = Node(f"bn-{unique}", Pins(BPFFS / f"bn_{unique.replace('-', '_')}"), Path(folder))
        try:
            made.set_up()
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Figure:
    """One line of a table: samples of one unit, and what they should be."""

    name: str
    samples: Sequence[float]
    unit: str
    target: str = ""
    met: bool | None = None
    """Whether the target is met; ``None`` where there is none."""


def below(name: str, samples: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure whose median must be below a limit."""
    return Figure(name, samples, unit, f"< {limit:g} {unit}", statistics.median(samples) < limit)


def must_be(name: str, samples: Sequence[float], value: float, unit: str) -> Figure:
    """A figure of which every sample must have one value."""
    return Figure(name, samples, unit, f"= {value:g}", set(samples) == {value})


def verdict(*, met: bool | None) -> str:
    """In one word."""
    return "" if met is None else "ok" if met else "MISSED"


def print_table(title: str, figures: Iterable[Figure]) -> bool:
    """Prints figures under a title. Returns whether all targets are met."""
    print(f"\n{title}\n  {'':46}{'median':>10} {'least':>10} {'most':>10} {'unit':6}{'n':>4}  target")
    all_met = True
    for each in figures:
        numbers = (statistics.median(each.samples), min(each.samples), max(each.samples))
        values = " ".join(f"{_short(number):>10}" for number in numbers)
        end = f"{each.target} {verdict(met=each.met)}".rstrip()
        print(f"  {each.name:46}{values} {each.unit:6}{len(each.samples):4}  {end}".rstrip())
        all_met = all_met and each.met is not False
    return all_met


def _short(number: float) -> str:
    return f"{number:.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"
