"""Fixtures of the netns rung: a node with pods, and programs to attach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation import private_namespaces
from tests.netns import bpf_program
from tests.netns.agent import Agent, clean
from tests.netns.lab import Lab
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.netlink.view import View


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    private_namespaces()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node without pods; what is made on it is gone after the test."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def agent(lab: Lab, tmp_path: Path) -> Iterator[Agent]:
    """An agent that is not started yet."""
    agent = Agent(tmp_path)
    yield agent
    if agent.process:
        agent.stop()
    clean()


@pytest.fixture
def connection() -> Iterator[Connection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def filters(connection: Connection) -> Filters:
    return Filters(connection)


@pytest.fixture
def view(connection: Connection) -> View:
    return View(connection)


@pytest.fixture
def monitor(lab: Lab) -> Iterator[Monitor]:
    """A monitor opened on an empty node."""
    monitor = Monitor()
    yield monitor
    monitor.close()


@pytest.fixture
def pass_program() -> Iterator[int]:
    """A program without a verdict, so that filters after it run."""
    descriptor = bpf_program.verdict_program(bpf_program.UNSPEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def drop_program() -> Iterator[int]:
    """A program that drops all."""
    descriptor = bpf_program.verdict_program(bpf_program.SHOT)
    yield descriptor
    os.close(descriptor)
