"""An agent of ``make bench-fleet``: the real one, in a process of its own, on a kernel in memory."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.fake_api import FakeApi, Seen
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


def test_an_agent_of_the_fleet_writes_slots_and_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the code of the present agent, of which the benchmark replaces the kernel only."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])
    fleet_agents = importlib.import_module("fleet_agents")
    options = AgentOptions("a", "system", "agent-a", "tokenbucket", probe_port=0, cni_results=tmp_path / "no")
    with FakeApi(POLICIES, PODS, NODES, CONFIG_MAPS, REPORTS) as api:
        api.put(NODES, "a")
        api.put(REPORTS, "a")
        api.put(CONFIG_MAPS, "tokenbucket", "system", data={"enforcement": "Enforce"})
        status = {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}
        api.put(PODS, "web", "shop", spec={"nodeName": "a"}, status=status)
        limit = {"ingress": {"rate": {"bits": "1M"}, "exceedAction": "Drop"}}
        spec = {"podSelector": {}, **limit}
        api.put(
            POLICIES,
            "all",
            "shop",
            apiVersion=API_VERSION,
            kind=POLICY,
            metadata={"generation": 1},
            spec=spec,
        )
        agent = fleet_agents.Agent(options, fleet_agents.Server(api.url, ""), "token", tmp_path / "log")

        def answer(*question: object) -> object:
            agent.ask(*question)
            return agent.answer()

        try:
            wait(lambda: answer("written", "all", 1))
            wait(lambda: answer("reported"))
            assert answer("reports", 0.0)
        finally:
            agent.kill()
        assert api.seen(_reports_a_limit)


def _reports_a_limit(seen: Seen) -> bool:
    return seen.method == "PATCH" and seen.path == REPORTS.path(name="a") and '"limits": 1' in seen.body
