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


def test_the_pod_has_the_rights_and_the_image_of_the_agent(detach: Document, agent: Document) -> None:
    """Remove everything that an agent has attached."""
    for field in ("hostNetwork", "tolerations", "securityContext"):
        assert detach[field] == agent[field], field
    for field in ("image", "securityContext"):
        assert detach["containers"][0][field] == agent["containers"][0][field], field


def test_the_pod_sees_the_same_parts_of_the_node_as_the_agent(detach: Document, agent: Document) -> None:
    """Share filters, pins, namespaces of pods, and the lock against other agents."""
    assert detach["volumes"] == [each for each in agent["volumes"] if each["name"] not in NOT_NEEDED]
    mounts = agent["containers"][0]["volumeMounts"]
    assert detach["containers"][0]["volumeMounts"] == [
        each for each in mounts if each["name"] not in NOT_NEEDED
    ]


def test_the_pod_runs_once_and_uses_no_api_server(detach: Document) -> None:
    """Grant no token."""
    assert detach["restartPolicy"] == "Never"
    assert detach["automountServiceAccountToken"] is False
    assert detach["containers"][0]["args"] == ["detach", "--all"]
