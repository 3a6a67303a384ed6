"""Log lines about steps of the agent that take long."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent import loop, slow_steps
from tokenbucket.agent.loop import StopSignals
from tokenbucket.core.status.node_status import DesiredInput


def test_a_run_that_waits_is_logged_while_it_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wait in a run until the line is there."""
    monkeypatch.setattr(slow_steps, "_LONG_S", 0.01)

    def snapshot() -> DesiredInput:
        while not caplog.records:
            time.sleep(0.01)
        return DesiredInput(cleanup=True)

    one, other = socket.socketpair()
    source: Any = SimpleNamespace(fileno=one.fileno, snapshot=snapshot)
    monitor: Any = SimpleNamespace(fileno=other.fileno)
    others: Any = (None, set(), None, None, None, "build")
    with StopSignals() as signals, one, other:
        loop.Loop(source, signals, monitor, *others).run()
    [line] = [each for each in caplog.records if each.name == slow_steps.log.name]
    assert (line.message, vars(line)["step"]) == ("waiting for the kernel", "reconcile run")


def test_a_step_that_ends_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """End the timer with the step."""
    timers: list[Any] = []
    start = slow_steps.threading.Timer.start
    monkeypatch.setattr(slow_steps.threading.Timer, "start", lambda self: (timers.append(self), start(self)))
    with slow_steps.reported("step"):
        pass
    [timer] = timers
    timer.join()
    assert caplog.records == []
