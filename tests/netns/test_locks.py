"""Only one agent runs for the pins and the interfaces of a node. Waits for a lock end and are reported."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns.agent import PATIENCE_S, PINS, Agent, drop, limit_of, policy, tokenbucket, wait
from tests.netns.lab import Lab
from tokenbucket.bpf import locks
from tokenbucket.bpf.locks import InterruptedWaitError, LockedError, Locks
from tokenbucket.errors import KernelError

_OTHER_RUN = "mount -t tmpfs tmpfs /run/tokenbucket"
_OTHER_BPFFS = "mount -t bpf bpf /sys/fs/bpf"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock as another process does."""
    fd = os.open(PINS.root / "locks" / name, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


@pytest.mark.parametrize("mount", [_OTHER_RUN, _OTHER_BPFFS], ids=["another /run", "another bpffs"])
def test_a_second_agent_does_not_start(lab: Lab, agent: Agent, tmp_path: Path, mount: str) -> None:
    """It would remove the limits of the first agent."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.limit(web, ingress=drop(1, 10))
    (tmp_path / "none").mkdir()
    command = [sys.executable, "-m", "tokenbucket", "agent", "--manifests", str(tmp_path / "none")]
    shell = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    second = subprocess.run(
        [*shell, *command, "--pins", str(PINS.root)], capture_output=True, text=True, timeout=240
    )
    assert (second.returncode, "another agent is running" in second.stderr) == (1, True), second.stderr
    assert f"pid {agent.process.pid}" in second.stderr
    assert limit_of("web")["hooks"]


def test_a_process_without_root_does_not_block_the_agent(lab: Lab, agent: Agent) -> None:
    """Any user of the node may bind the name of the agent's socket."""
    take = "import os, socket, sys; os.setuid(65534); "
    take += f"s = socket.socket(socket.AF_UNIX); s.bind({locks._SOCKET!r})"
    script = f"{take}; s.listen(); print('taken', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"taken\n"
        web = lab.pod("web", ["10.2.1.2/24"])
        agent.limit(web, ingress=drop(1, 10))
        assert agent.events("name of the agent taken by a process that is not root")
        other.stdin.close()


def test_an_agent_that_waits_for_a_lock_reports_it_and_can_be_stopped(lab: Lab, agent: Agent) -> None:
    """The holder of the lock may hang. New pods are not limited during the wait."""
    web = lab.pod("web", ["10.2.1.2/24"])
    agent.limit(web, ingress=drop(1, 10))
    with locked("slots"):
        agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, 11)))
        [line, *_] = wait(lambda: agent.events("waiting for a lock"), agent.log)
        assert line["holder"] == f"pid {os.getpid()}"
        assert agent.stop(signal.SIGTERM) == 0
    assert limit_of("web")["burstPackets"] == 10


def test_a_command_that_waits_for_a_lock_reports_it(lab: Lab, agent: Agent) -> None:
    """After the wait, the command completes."""
    web = lab.pod("web", ["10.2.1.2/24"])
    tokenbucket("attach", "--dev", web.veth, "--direction", "ingress", "--rate", "1M")
    command = [sys.executable, "-m", "tokenbucket", "detach", "--dev", web.veth, "--pins", str(PINS.root)]
    with locked("slots"):
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert "waiting for a lock" in waiting.stderr.readline()
    waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 0


def test_a_lock_of_removed_pins_does_not_lock_new_pins(lab: Lab) -> None:
    """A process waits while a second process removes the pins and a third process creates new pins."""
    root = Path("/sys/fs/bpf/other_pins")
    one, two = Locks(root), Locks(root)
    with one.only_agent(), one.writing():
        for name in ("slots", "agent"):
            (root / "locks" / name).rmdir()
        (root / "locks").rmdir()
        root.rmdir()
        with pytest.raises(LockedError):  # the name of the socket in the network namespace is taken
            two.only_agent().__enter__()
        with two.writing():
            pass
    (root / "locks/agent").rmdir()
    (root / "locks/slots").rmdir()
    (root / "locks").rmdir()
    root.rmdir()


def test_locking_missing_pins_creates_nothing() -> None:
    """A detach without pins creates no folder."""
    with pytest.raises(KernelError):
        Locks(Path("/sys/fs/bpf/no_pins")).writing().__enter__()
    assert not Path("/sys/fs/bpf/no_pins").exists()


def test_a_wait_ends_when_the_process_must_end(lab: Lab) -> None:
    """The wait ends although the holder keeps the lock."""
    tokenbucket("attach", "--dev", "lo", "--direction", "egress", "--rate", "1G")
    with locked("slots"), pytest.raises(InterruptedWaitError):
        Locks.of(PINS, lambda: True).writing().__enter__()
    tokenbucket("detach", "--dev", "lo")
