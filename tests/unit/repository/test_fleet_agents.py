"""An agent of ``make bench-fleet``: the real agent in its own process, on a kernel in memory."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_api import RESET, FakeApi, Seen
from tokenbucket.agent.options import AgentOptions
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, PODS, POLICIES, REPORTS
from tokenbucket.core.api.parse import API_VERSION, POLICY

BENCH = Path(__file__).parents[3] / "bench"
PATIENCE_S = 120


def wait(condition: Callable[[], object]) -> None:
    """Poll until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain"
        time.sleep(0.1)


Ask = Callable[..., Any]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """Serve a cluster with one node and one pod."""
    with FakeApi(POLICIES, PODS, NODES, CONFIG_MAPS, REPORTS) as api:
        api.put(NODES, "a")
        api.put(REPORTS, "a")
        api.put(CONFIG_MAPS, "tokenbucket", "system", data={"enforcement": "Enforce"})
        status = {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}
        api.put(PODS, "web", "shop", spec={"nodeName": "a"}, status=status)
        limit_to(api, 1)
        yield api


def limit_to(api: FakeApi, generation: int) -> int:
    """Write a generation of the policy. Return its resource version."""
    limit = {"rate": {"bits": f"{generation}M"}, "exceedAction": "Drop"}
    spec = {"podSelector": {}, "ingress": limit}
    metadata = {"generation": generation}
    put = api.put(POLICIES, "all", "shop", apiVersion=API_VERSION, kind=POLICY, metadata=metadata, spec=spec)
    return int(put["metadata"]["resourceVersion"])


@pytest.fixture
def ask(api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ask]:
    """Return questions to a running agent."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])
    fleet_agents = importlib.import_module("fleet_agents")
    options = AgentOptions("a", "system", "agent-a", "tokenbucket", probe_port=0, cni_results=tmp_path / "no")
    agent = fleet_agents.Agent(options, fleet_agents.Server(api.url, ""), "token", tmp_path / "log")

    def answer(*question: object) -> object:
        agent.ask(*question)
        return agent.answer()

    yield answer
    agent.kill()


def test_an_agent_of_the_fleet_writes_slots_and_reports(api: FakeApi, ask: Ask) -> None:
    """Use the code of the current agent, and replace only the kernel."""
    wait(lambda: ask("written", "all", 1))
    wait(lambda: ask("reported"))
    wait(lambda: api.seen(_reports_a_limit))
    assert ask("reports", 0.0)


@contextmanager
def rejected(api: FakeApi, status: int) -> Iterator[Callable[[], None]]:
    """Reject each request: 401 for an expired token, 403 without a role, 429 for minutes."""

    def wait_for_attempts() -> None:
        seen = len(api.requests)
        wait(lambda: len(api.requests) > seen + 2)

    api.rejects = status
    try:
        yield wait_for_attempts
    finally:
        api.rejects = 0


@contextmanager
def unanswered(api: FakeApi) -> Iterator[Callable[[], None]]:
    """Drop the packets of a connection."""
    with api.lock:
        yield lambda: time.sleep(0.5)


def test_a_deaf_agent_reports_nothing_and_catches_up(api: FakeApi, ask: Ask) -> None:
    """Let its last report become old, so that the controller notices, and process everything afterwards."""
    wait(lambda: ask("reported"))
    faults = [partial(rejected, api, status) for status in (401, 403, 429)] + [partial(unanswered, api)]
    for generation, fault in enumerate(faults, 2):
        with fault() as wait_for_attempts:
            api.cut(RESET)
            version = limit_to(api, generation)
            wait_for_attempts()
            begin = time.monotonic()
            wait_for_attempts()
            assert not ask("written", "all", generation)
            assert not ask("reports", begin)
        wait(lambda generation=generation: ask("written", "all", generation))
        wait(lambda version=version: api.seen(lambda seen: _version(seen) >= version))


def _version(seen: Seen) -> int:
    """Return the version of policies that a request reports."""
    return int(json.loads(seen.body)["status"]["policiesVersion"]) if _is_report(seen) else -1


def _is_report(seen: Seen) -> bool:
    return seen.method == "PATCH" and seen.path == REPORTS.path(name="a")


def _reports_a_limit(seen: Seen) -> bool:
    return _is_report(seen) and '"limits": 1' in seen.body
