"""The cleanup before an uninstallation, against an API server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tokenbucket.apiserver.resources import CONFIG_MAPS, DAEMON_SETS, NODES, REPORTS
from tokenbucket.cli import main
from tokenbucket.controller.cleanup import Cleaned, Release, clean_up
from tokenbucket.errors import ExitCode

NAMESPACE = "tokenbucket-system"
RELEASE = Release(NAMESPACE, "tokenbucket", "limits")
INSTALLED = {"meta.helm.sh/release-name": "limits", "meta.helm.sh/release-namespace": NAMESPACE}


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    """Serve the ConfigMap of a release without a cleanup request."""
    api.kinds |= {CONFIG_MAPS, DAEMON_SETS, NODES, REPORTS}
    api.put(CONFIG_MAPS, "tokenbucket", NAMESPACE, data={"enforcement": "Enforce", "cleanup": "false"})
    return api


def put_agents(api: FakeApi, annotations: dict[str, str], namespace: str = NAMESPACE) -> None:
    api.put(DAEMON_SETS, "tokenbucket-agent", namespace, metadata={"annotations": annotations})


def put_report(api: FakeApi, node: str, release: str, *, clean: bool = True, ready: bool = True) -> None:
    conditions = [{"type": "Ready", "status": str(ready)}]
    api.put(NODES, node, status={"conditions": conditions})
    api.put(REPORTS, node, status={"agent": {"release": release}, "clean": clean})


def run(timeout_s: float = 60.0) -> Cleaned | None:
    return asyncio.run(clean_up(RELEASE, timeout_s, lambda _: None))


def written(api: FakeApi) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in api.requests if seen.method != "GET"]


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        INSTALLED | {"meta.helm.sh/release-name": "other"},
        INSTALLED | {"meta.helm.sh/release-namespace": "default"},
    ],
    ids=["none", "kubectl", "another release", "a release of another namespace"],
)
def test_a_release_that_helm_does_not_own_stays(cluster: FakeApi, annotations: dict[str, str]) -> None:
    """Keep the enforcement mode if another tool runs the hook at the installation."""
    put_agents(cluster, annotations)
    put_report(cluster, "a", f"{NAMESPACE}/tokenbucket")
    assert run() is None
    assert not written(cluster)


def test_a_hook_that_runs_before_the_agents_exist_changes_nothing(cluster: FakeApi) -> None:
    """Expect any order of objects, and agents of another release in another namespace."""
    put_agents(cluster, INSTALLED, namespace="other")
    assert run() is None
    assert not written(cluster)


def test_the_nodes_of_the_release_are_cleaned(cluster: FakeApi) -> None:
    """Include reports of earlier versions, which name no release."""
    put_agents(cluster, INSTALLED)
    put_report(cluster, "a", f"{NAMESPACE}/tokenbucket")
    put_report(cluster, "b", "")
    put_report(cluster, "lost", f"{NAMESPACE}/tokenbucket", clean=False, ready=False)
    assert run() == Cleaned(("a", "b"), ("lost",))
    config = f"/api/v1/namespaces/{NAMESPACE}/configmaps/tokenbucket"
    [asked] = cluster.seen(lambda seen: (seen.method, seen.path) == ("PATCH", config))
    content: dict[str, Any] = json.loads(asked.body)
    assert content["data"] == {"enforcement": "Off", "cleanup": "true"}
    assert not cluster.list(REPORTS)["items"]


def test_the_reports_of_another_release_stay(cluster: FakeApi) -> None:
    """Do not wait for its nodes, which never become clean."""
    put_agents(cluster, INSTALLED)
    put_report(cluster, "a", f"{NAMESPACE}/tokenbucket")
    put_report(cluster, "b", "default/tokenbucket", clean=False)
    put_report(cluster, "c", f"{NAMESPACE}/canary", clean=False)
    assert run() == Cleaned(("a",), ())
    assert {each["metadata"]["name"] for each in cluster.list(REPORTS)["items"]} == {"b", "c"}


def test_the_command_names_the_release_that_owns_nothing(
    cluster: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Succeed, because the tool that started the Job waits for it."""
    put_agents(cluster, {})
    assert main(["cleanup", "--namespace", NAMESPACE, "--helm-release", "limits"]) == ExitCode.DONE
    assert "Helm release limits owns no agent, so nothing is cleaned" in capsys.readouterr().err
    assert not written(cluster)
