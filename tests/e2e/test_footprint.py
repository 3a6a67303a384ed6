"""The memory of the agent. A coarse bound: ``bench/cluster.py`` measures it."""

from __future__ import annotations

import pytest

from cluster.node_shell import NodeShell
from tests.e2e.agent_process import resident_bytes
from tests.e2e.release import Release

GOAL_BYTES = 64 * 2**20


@pytest.fixture(autouse=True)
def _running(release: Release) -> None:
    release.wait()


def test_the_agent_is_small(shell: NodeShell, nodes: list[str]) -> None:
    """Add all its processes, after the compiler has ended."""
    for node in nodes:
        assert resident_bytes(shell, node) < 1.25 * GOAL_BYTES, node


def test_the_agent_has_no_client_library_of_kubernetes(release: Release, nodes: list[str]) -> None:
    """Avoid a library that needs more memory than the rest."""
    look = "import importlib.util as u; print(u.find_spec('kubernetes'))"
    for node in nodes:
        agent = release.agent(node)
        assert release.kubectl.exec(agent, "python3", "-I", "-c", look).strip() == "None"
