"""A node for a benchmark: the tests' lab, with an agent that the benchmark starts and kills.

The node is the network namespace of this process, as in the tests, with an own bpffs.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.isolation import private_namespaces
from tests.netns.agent import PINS, Agent, clean, document, policy, wait
from tests.netns.lab import Lab, Pod
from tokenbucket.bpf.pins import mount_bpffs
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.netlink.connection import connect
from tokenbucket.node.view import View

Line = dict[str, Any]


def pod_documents(*pods: Pod) -> str:
    """Return the documents of pods with the label ``app=bench``."""
    return yaml.safe_dump_all(document(pod, app="bench") for pod in pods)


def policy_document(
    bits_per_s: int,
    burst_bytes: int | None = None,
    *,
    action: str = "Drop",
    direction: str = "ingress",
    queue: str | None = None,
) -> str:
    """Return a policy for all pods with the label ``app=bench``."""
    burst = {"burst": {"bytes": burst_bytes}} if burst_bytes else {}
    limit = {"rate": {"bits": bits_per_s}, **burst, "exceedAction": action}
    if queue:
        limit["queue"] = queue
    return yaml.safe_dump(policy("bench", app="bench", **{direction: limit}))


@dataclass
class Node:
    """A node with pods and an agent."""

    folder: Path
    agent: Agent
    options: tuple[str, ...] = ()
    """Options of the agents that are started later."""
    lab: Lab = field(default_factory=Lab)
    pins = PINS
    _earlier: int = 0
    """Number of lines in the log from earlier starts."""

    def start_agent(self) -> float:
        """Start the agent, and wait until its program is loaded. Return the time just before, as in logs."""
        self._earlier = len(self.agent.lines())
        self.agent.start("--log-level", "info", *self.options)
        return self.agent.started_at_s

    def declare(self, file: str, text: str) -> float:
        """Write a manifest. Return the time of the monotonic clock just before."""
        before = time.monotonic()
        self.agent.write(file, text)
        return before

    def events(self, name: str) -> list[Line]:
        """Return the lines with an event from the log of the running agent."""
        return [line for line in self.agent.lines()[self._earlier :] if line["event"] == name]

    def wait_for(self, name: str, after: int = 0, **values: object) -> Line:
        """Wait for an event with these values after ``after`` others with its name. Return its line."""

        def found() -> Line | None:
            return next((each for each in self.events(name)[after:] if values.items() <= each.items()), None)

        line: Line = wait(found, self.agent.log)
        return line

    def filters(self) -> dict[int, tuple[int, int]]:
        """Return slot and program id of each filter of tokenbucket, by interface. Reads the kernel."""
        with connect() as connection:
            view = View(connection, Tcx(self.pins))
            view.refresh()
            return {
                ifindex: (ours.slot, ours.prog_id)
                for ifindex, filters in view.filters.items()
                for ours in filters.ours
            }

    def warn_if_repaired(self, filters: int) -> None:
        """Print a warning if the agent attached more filters than necessary: its times are useless then."""
        repairs = len(self.events("attached")) - filters
        if repairs > 0:
            print(
                f"DISTURBED: another program, such as 'tokenbucket detach --all', removed {repairs} filters"
            )

    def close(self) -> None:
        """End the agent, and remove all pods, pins and limits."""
        if self.agent.process:
            self.agent.stop()
        clean()
        self.lab.close()


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """Provide a node without pods, whose agent does not run yet."""
    private_namespaces()
    mount_bpffs()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made = Node(Path(folder), Agent(Path(folder)))
        try:
            yield made
        finally:
            made.close()


def stamp_s(line: Line) -> float:
    """Return the time of a line of the log, in seconds of the wall clock."""
    return datetime.fromisoformat(line["time"]).timestamp()
