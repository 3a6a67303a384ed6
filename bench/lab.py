"""What the benchmarks share: a node made of network namespaces, an agent on it, and tables of figures."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.pins import BPFFS, Pins
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.view import View

TOKENBUCKET = str(Path(sys.executable).parent / "tokenbucket")
WAIT_S = 60.0
_CLONE_NEWNET = 0x40000000
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


def policy_document(bits_per_s: int, burst_bytes: int | None = None) -> str:
    """The one policy, on what all pods receive."""
    burst = f"\n    burst: {{bytes: {burst_bytes}}}" if burst_bytes else ""
    return (
        "apiVersion: tokenbucket.dev/v1alpha1\nkind: TokenBucketPolicy\n"
        "metadata: {name: bench, namespace: bench}\nspec:\n"
        "  podSelector: {matchLabels: {app: bench}}\n  ingress:\n"
        f"    rate: {{bits: {bits_per_s}}}{burst}\n    exceedAction: Drop\n"
    )


class Agent:
    """An agent process. Its log is JSON, with times of the wall clock in whole milliseconds."""

    def __init__(self, node: Node, log: Path) -> None:
        self._log = log
        with log.open("wb") as output, inside(node.name):
            self.started_at_s = time.time()
            command = [TOKENBUCKET, "agent", "--manifests", str(node.manifests), "--pins", str(node.pins.root)]
            self.process = subprocess.Popen([*command, "--log-format", "json"], stdout=output, stderr=output)

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


def wait_until[T](condition: Callable[[], T | None], what: str, pause_s: float = 0.02) -> T:
    """Polls until there is a value. Raises TimeoutError."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        value = condition()
        if value is not None:
            return value
        time.sleep(pause_s)
    raise TimeoutError(f"waited {WAIT_S:.0f} s for {what}")
