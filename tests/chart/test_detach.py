"""The pod that cleans a node where no agent runs: examples/detach.yaml."""

from __future__ import annotations

import pytest
import yaml

from tests.chart.chart import ROOT, Document, Manifests

NOT_NEEDED = {"cni-results", "tmp"}
"""What the agent mounts to find pods and to compile."""


@pytest.fixture(scope="module")
def detach() -> Document:
    document = yaml.safe_load((ROOT / "examples" / "detach.yaml").read_text())
    return document["spec"]


@pytest.fixture
def agent(default: Manifests) -> Document:
    return default.pods()["tokenbucket-agent"]


def test_it_may_do_what_the_agent_may(detach: Document, agent: Document) -> None:
    """What the agent has set up takes its rights to remove, and needs its image."""
    for field in ("hostNetwork", "tolerations", "securityContext"):
        assert detach[field] == agent[field], field
    for field in ("image", "securityContext"):
        assert detach["containers"][0][field] == agent["containers"][0][field], field


def test_it_sees_of_the_node_what_the_agent_sees(detach: Document, agent: Document) -> None:
    """Filters and pins, what is inside pods, and the lock that keeps others out meanwhile."""
    assert detach["volumes"] == [each for each in agent["volumes"] if each["name"] not in NOT_NEEDED]
    mounts = agent["containers"][0]["volumeMounts"]
    assert detach["containers"][0]["volumeMounts"] == [
        each for each in mounts if each["name"] not in NOT_NEEDED
    ]


def test_it_runs_once_and_asks_no_api_server(detach: Document) -> None:
    """Its work is done when it has ended, and it has nothing to ask for."""
    assert detach["restartPolicy"] == "Never"
    assert detach["automountServiceAccountToken"] is False
    assert detach["containers"][0]["args"] == ["detach", "--all"]
