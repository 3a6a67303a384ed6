"""The commands of the documentation, run as written on the cluster: by ``make e2e-docs``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.documentation.blocks import ROOT, Block, blocks
from tests.e2e.desk import Desk
from tests.e2e.release import NAMESPACE, Release

GETTING_STARTED = ROOT / "docs/getting-started/kubernetes.md"
TASKS = ROOT / "docs/tasks"
ELSEWHERE = {
    "install-with-other-tools.md",  # test_installation.py runs it
    "check-nodes.md",  # fails by its exit status on a node without fq
    "choose-rate-and-burst.md",  # measures for hours, and suggests a limit from hours of traffic
    "Install the plugin",  # from a package index
    "Find the bucket of a client",  # of a policy with perPeer, and of a client, that each reader has
}
"""Pages and sections that these tests do not run."""
WITHOUT_AGENTS = {("uninstall.md", "Unreachable nodes")}


def sections(page: Path) -> Iterator[tuple[str, list[Block]]]:
    """Yield the sections that have commands."""
    for text in page.read_text().split("\n## "):
        found = list(blocks(text))
        if any(block.language == "sh" for block in found):
            yield text.partition("\n")[0].removeprefix("# "), found


CASES = {
    f"{page.stem}: {title}": (page.name, title, found)
    for page in sorted(TASKS.glob("*.md"))
    for title, found in sections(page)
    if not ELSEWHERE & {page.name, title}
}


@pytest.fixture
def desk(release: Release, nodes: list[str], tmp_path: Path) -> Iterator[Desk]:
    """Provide a desk. At the end, restore the defaults of the release and remove the override."""
    made = Desk(tmp_path, release, nodes[0])
    made.prepare()
    yield made
    release.kubectl.run("delete", "configmap", "tokenbucket-override", "--ignore-not-found")
    release.install()


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[None]:
    """Create the pods that the pages name, and the policies of the example."""
    default = Kubectl(release.admin.kubeconfig, release.admin.program)
    with release.admin.fresh_namespace("shop") as here, _applied(default, pod("web", nodes[0])):
        here.apply(*(pod(f"web-{index}", nodes[0], {"app": "web"}) for index in range(2)))
        here.apply(*yaml.safe_load_all((ROOT / "examples/policy.yaml").read_text()))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        default.wait("condition=Ready", "pod/web", timeout_s=180)
        here.wait("condition=Ready", "tbp", "--all", timeout_s=180)
        yield


@contextlib.contextmanager
def _applied(kubectl: Kubectl, document: dict[str, object]) -> Iterator[None]:
    kubectl.apply(document)
    try:
        yield
    finally:
        kubectl.delete(document)


def test_a_reader_gets_started(release: Release, desk: Desk) -> None:
    """Run all commands of the page in order, on a cluster without tokenbucket."""
    release.uninstall()
    release.admin.run("delete", "namespace", NAMESPACE, "shop", "--ignore-not-found", timeout_s=240)
    desk.run(blocks(GETTING_STARTED.read_text()))


@pytest.mark.parametrize("name", CASES)
def test_a_task_works_as_described(name: str, release: Release, shop: None, desk: Desk) -> None:
    """Run each section alone, because several sections of a page are choices."""
    page, title, found = CASES[name]
    if (page, title) in WITHOUT_AGENTS:
        release.uninstall()
    desk.run(found)
