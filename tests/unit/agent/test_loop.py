"""Waiting of the agent without work."""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tokenbucket.agent import loop, run
from tokenbucket.agent.loop import StopSignals
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import DeviceId, Owner, Slot, SlotConfig, SlotKey
from tokenbucket.core.status.node_status import DesiredInput, Outcome
from tokenbucket.netlink.events import Event, EventKind
from tokenbucket.pacing import NextRun


class Clean:
    """A source without changes, which has work after a number of questions."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._wakeup, self._waker = socket.socketpair()

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def drain(self) -> None:
        raise AssertionError

    def snapshot(self) -> DesiredInput:
        self.left -= 1
        return DesiredInput(cleanup=self.left > 0)

    def close(self) -> None:
        self._wakeup.close()
        self._waker.close()


def test_an_agent_of_a_clean_node_continues_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the kubelet from restarting an agent that asks nothing."""
    monkeypatch.setattr(run, "_ASK_S", 0.01)
    with StopSignals() as signals:
        source, changes = Clean(3), []
        run._stay_away(source, signals, ReconcileStats(on_change=lambda: changes.append("clean")))
        source.close()
    assert (source.left, changes) == (0, ["clean"] * 2)


DEVICE = Slot(Owner(SlotKey(DeviceId(1, "eth1"), Direction.EGRESS)), SlotConfig(bits_per_s=10**6))


@pytest.mark.parametrize(
    ("in_use", "builds"), [({}, ["build"]), ({1: DEVICE}, [])], ids=["", "but the one that limits a device"]
)
def test_a_run_that_waits_for_a_queue_removes_other_builds(
    in_use: dict[int, Slot], builds: list[str]
) -> None:
    """Remove them: a queue runs no program, and can hold packets for as long as flows last."""
    removed: list[str] = []
    outcome = Outcome(waits=True)
    source: Any = SimpleNamespace(snapshot=DesiredInput)
    previous_layouts = SimpleNamespace(unpin=lambda: removed.append("layouts"))
    slots = SimpleNamespace(read=lambda: in_use, previous_layouts=previous_layouts)
    reconciler: Any = SimpleNamespace(reconcile=lambda *_: outcome, observer=SimpleNamespace(slots=slots))
    pins: Any = SimpleNamespace(remove_other_builds=removed.append)
    others: Any = (None, None, None, set())
    tcx: Any = SimpleNamespace(remove_stale=lambda: None)
    agent = loop.Loop(source, *others, reconciler, tcx, pins, "build")
    assert (agent._reconcile(0.0), removed) == (NextRun.SOON, [*builds, "layouts"])


@pytest.mark.parametrize(
    ("event", "runs"),
    [
        (Event(EventKind.NEW_ADDRESS, nsid=3, ifindex=2), False),
        (Event(EventKind.NEW_ADDRESS, nsid=3, ifindex=2, address=ip_address("10.1.0.1")), True),
        (Event(EventKind.NEW_LINK, nsid=3, ifindex=2), True),
    ],
    ids=["link-local address", "address", "link"],
)
def test_events_that_decide_about_no_pod_cause_no_run(event: Event, runs: bool) -> None:  # noqa: FBT001
    """Each new interface has an event of a link-local address, which would delay the limits of other pods."""
    source, signals, connection, own_ports, tcx, pins = (cast("Any", None) for _ in range(6))
    monitor: Any = SimpleNamespace(read=lambda: [event])
    observer = SimpleNamespace(view=SimpleNamespace(mark_stale=lambda _: 0))
    reconciler: Any = SimpleNamespace(observer=observer, note_change=lambda _: 0)
    agent = loop.Loop(source, signals, monitor, connection, own_ports, reconciler, tcx, pins, "build")
    agent.schedule.started(time.monotonic())
    agent._network_changed()
    assert (agent.schedule.wait(time.monotonic()) < 1.0) is runs
