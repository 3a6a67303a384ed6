"""The cluster for users: what the demo leaves as it is, and the commands that the text suggests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from cluster.cluster import Cluster
from tests.e2e import dev_cluster

CLUSTER: Any = SimpleNamespace(kubectl=None, kubeconfig="/k", place=SimpleNamespace(programs=Path("/bin")))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what the command does to a cluster that runs, with a release."""
    calls: list[str] = []

    def up(*_: object, **__: object) -> Cluster:
        calls.append("up")
        return CLUSTER

    def release(_: object) -> Any:
        return SimpleNamespace(install=lambda: calls.append("install"), exists=lambda: True)

    monkeypatch.setattr(dev_cluster, "find", lambda _: CLUSTER)
    monkeypatch.setattr(dev_cluster, "failures", lambda _: [])
    monkeypatch.setattr(dev_cluster, "up", up)
    monkeypatch.setattr(dev_cluster, "operator_image", lambda: None)
    monkeypatch.setattr(dev_cluster, "Release", release)
    monkeypatch.setattr(dev_cluster, "demo", lambda _: calls.append("demo"))
    return calls


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    monkeypatch.setattr("sys.argv", ["dev_cluster", command])
    return dev_cluster.main()


def test_the_demo_keeps_the_values_of_a_release(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Install only in a new cluster."""
    assert (run(monkeypatch, "demo"), calls) == (0, ["demo"])
    calls.clear()
    monkeypatch.setattr(dev_cluster, "find", lambda _: None)
    assert (run(monkeypatch, "demo"), calls) == (0, ["up", "install", "demo"])


def test_the_demo_removes_no_cluster_with_a_failure(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name the component that failed."""
    monkeypatch.setattr(dev_cluster, "failures", lambda _: ["node-1: not ready"])
    assert (run(monkeypatch, "demo"), calls) == (1, [])
    assert "'make cluster' replaces it: node-1: not ready" in capsys.readouterr().err


def test_a_cluster_that_runs_is_named_before_it_changes(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster that has failed loses its objects."""
    assert (run(monkeypatch, "up"), calls) == (0, ["up", "install"])
    text = capsys.readouterr().out
    assert text.startswith("the cluster already runs, and keeps its objects")
    assert "export KUBECONFIG=/k" in text
    assert "'make cluster-down' stops the cluster" in text
    monkeypatch.setattr(dev_cluster, "failures", lambda _: ["node-1: not ready"])
    run(monkeypatch, "up")
    assert capsys.readouterr().out.startswith("replacing the cluster, which has failed: node-1: not ready\n")


def test_the_suggested_commands_limit_the_pods_that_they_create(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare the commands with the example."""
    assert (run(monkeypatch, "up"), calls) == (0, ["up", "install"])
    text = capsys.readouterr().out
    example = list(yaml.safe_load_all(dev_cluster.EXAMPLE.read_text()))
    assert str(dev_cluster.EXAMPLE).endswith("examples/policy.yaml")
    assert "kubectl apply -f examples/policy.yaml" in text
    [namespace] = {document["metadata"]["namespace"] for document in example}
    assert f"create namespace {namespace}" in text
    assert f"--namespace {namespace} create deployment web " in text
    assert {"app": "web"} in [policy["spec"]["podSelector"].get("matchLabels") for policy in example]
