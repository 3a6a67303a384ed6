"""Fixtures of the netns rung: a node with pods, and programs to attach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation import private_namespaces
from tests.netns import bpf_program
from tests.netns.agent import PINS, Agent, free_slots
from tests.netns.lab import Lab
from tests.netns.recorder import Recorder
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.node.view import View


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    private_namespaces()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Provide a node without pods. After the test, remove everything that the test added to the node."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def recorder(lab: Lab) -> Iterator[Recorder]:
    """Sample the traffic of all pods of the lab while the test runs."""
    recorder = Recorder(lab.pods)
    yield recorder
    recorder.stop()


@pytest.fixture
def agent(recorder: Recorder, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """Provide an agent that is not started yet. At the end, assert that no enforced limit was exceeded."""
    free_slots()
    agent = Agent(tmp_path, recorder.declare)
    yield agent
    recorder.stop()
    if agent.process:
        agent.stop()
    if not request.node.get_closest_marker("exceeds"):
        recorder.verify(agent.lines())


@pytest.fixture
def connection() -> Iterator[Connection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def filters(connection: Connection) -> Filters:
    return Filters(connection)


@pytest.fixture
def tcx() -> Tcx:
    return Tcx(PINS)


@pytest.fixture
def view(connection: Connection, tcx: Tcx) -> View:
    return View(connection, tcx)


@pytest.fixture
def monitor(lab: Lab) -> Iterator[Monitor]:
    """Open a monitor on an empty node."""
    monitor = Monitor()
    yield monitor
    monitor.close()


@pytest.fixture
def pass_program() -> Iterator[int]:
    """Load a program that returns no verdict, so that later filters run."""
    descriptor = bpf_program.verdict_program(bpf_program.UNSPEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def drop_program() -> Iterator[int]:
    """Load a program that drops all packets."""
    descriptor = bpf_program.verdict_program(bpf_program.SHOT)
    yield descriptor
    os.close(descriptor)
