"""One cluster, with the chart installed, for all tests of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cluster import Cluster, find
from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up
from cluster.node_shell import NodeShell, node_shells
from cluster.versions import versions
from tests.e2e.explanations import Plugin
from tests.e2e.image import layout_image, operator_image
from tests.e2e.release import Release, until


def pytest_report_header() -> str | None:
    """Return the line that tests/support/record.py reads."""
    return None if _external() else f"release: {versions().kubernetes}"


def _external() -> Path | None:
    """Return a cluster that the user names, in place of the harness's own."""
    named = os.environ.get("TOKENBUCKET_E2E_KUBECONFIG")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide the cluster of the suite: a running one, which stays, or a new one, which ends after the tests.

    It has a node in a virtual machine, unless ``$TOKENBUCKET_E2E_VM`` is 0. Tests that stop parts of it are
    skipped on a cluster that the user names.
    """
    if _external():
        pytest.skip("stops parts of the cluster: only on the harness's own")
    was_up = find() is not None
    vm = os.environ.get("TOKENBUCKET_E2E_VM", "1") != "0"
    images = [operator_image(), layout_image()]
    made = up(lambda text: print(text, file=sys.stderr, flush=True), vm=vm, images=images)
    yield made
    if not was_up:
        down()


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Kubectl:
    """Provide commands as the administrator, of whichever cluster there is."""
    external = _external()
    if external:
        return Kubectl(external)
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.kubectl


@pytest.fixture(scope="session")
def release(kubectl: Kubectl) -> Iterator[Release]:
    """Provide the chart, installed as by a user, and uninstall it after the tests."""
    installed = Release(kubectl)
    installed.uninstall()  # what a killed run has left
    installed.install()
    yield installed
    installed.uninstall()


@pytest.fixture(scope="session")
def nodes(kubectl: Kubectl) -> list[str]:
    """Provide names of the nodes that take pods."""
    return [
        node["metadata"]["name"]
        for node in kubectl.items("nodes")
        if not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints", ()))
    ]


@pytest.fixture(scope="session")
def has_fq(release: Release, nodes: list[str]) -> dict[str, bool]:
    """Provide whether the kernel of each node has ``fq``, as its agent reports."""

    def reported() -> dict[str, bool]:
        found = {each["metadata"]["name"]: each["status"].get("fq") for each in release.admin.items("tbn")}
        return found if found.keys() >= set(nodes) else {}

    return until(reported)


@pytest.fixture(scope="session")
def with_fq(has_fq: dict[str, bool], nodes: list[str]) -> list[str]:
    """Provide the nodes with ``fq``."""
    found = [node for node in nodes if has_fq[node]]
    return found or pytest.skip("no node of the cluster has a kernel with sch_fq")


@pytest.fixture(scope="session")
def without_fq(has_fq: dict[str, bool], nodes: list[str]) -> list[str]:
    """Provide the nodes without ``fq``."""
    found = [node for node in nodes if not has_fq[node]]
    return found or pytest.skip("every node of the cluster has a kernel with sch_fq")


@pytest.fixture(scope="session")
def shell(kubectl: Kubectl) -> Iterator[NodeShell]:
    """Provide commands on every node."""
    with node_shells(kubectl) as shells:
        yield shells


@pytest.fixture
def plugin(release: Release, tmp_path: Path) -> Plugin:
    """Provide the kubectl plugin, with the rights of the administrator."""
    return Plugin(release.admin, tmp_path)
