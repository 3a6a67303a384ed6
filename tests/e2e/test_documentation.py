"""The examples of the documentation, run as written on the cluster: by ``make e2e-docs``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.documentation.blocks import ROOT, blocks
from tests.documentation.coverage import FILES, GETTING_STARTED, on_cluster
from tests.e2e.desk import Desk
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.states_documentation import PROMETHEUS, everywhere, in_shop, state_of

CASES = {f"{place.page}: {place}": (place, found) for place, found in on_cluster()}
EXAMPLE = list(yaml.safe_load_all((ROOT / "examples/policy.yaml").read_text()))
SHOP = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


@pytest.fixture
def desk(release: Release, nodes: list[str], tmp_path: Path) -> Iterator[Desk]:
    """Provide a desk. At the end, restore the release if the page has changed it."""
    made = Desk(tmp_path, release, nodes[-1])
    made.prepare()
    before = revisions(release)
    yield made
    release.kubectl.run("delete", "configmap", "tokenbucket-override", "--ignore-not-found")
    labels = ("tokenbucket.dev/enforcement-", "tokenbucket.dev/canary-")
    release.admin.run("label", "nodes", "--all", *labels)
    if revisions(release) != before:
        release.install()
    release.wait()


def revisions(release: Release) -> str:
    """Return the names of the revisions that Helm has stored."""
    return release.kubectl.run("get", "secrets", "--selector=owner=helm", "--output=name")


@pytest.fixture
def shop(release: Release, nodes: list[str], desk: Desk) -> Kubectl:
    """Restore the pods that the pages name, and the policies of the example. The namespace stays."""
    admin = release.admin
    places = (nodes[0], desk.node)
    web = (in_shop(pod(f"web-{index}", node, {"app": "web"})) for index, node in enumerate(places))
    annotated = pod("web", desk.node)
    annotated["metadata"]["annotations"] = {"kubernetes.io/ingress-bandwidth": "50M"}
    everywhere(release).run("delete", "tbp", "--all", "--all-namespaces")
    admin.run("wait", "--for=create", "serviceaccount/default", timeout_s=60)
    everywhere(release).apply(SHOP, *web, annotated, *EXAMPLE)
    here = Kubectl(admin.kubeconfig, admin.program, "shop")
    for kubectl, names in ((here, ("pod/web-0", "pod/web-1")), (admin, ("pod/web",))):
        kubectl.wait("condition=Ready", *names, timeout_s=180)
    here.wait("condition=Ready", "tbp", "--all", timeout_s=180)
    return here


@pytest.fixture(scope="module", autouse=True)
def _removed(release: Release) -> Iterator[None]:
    yield
    release.admin.run("delete", "namespace", "shop", "--ignore-not-found", timeout_s=240)
    release.admin.run("delete", "pod", "web", "--ignore-not-found")
    release.admin.delete(*PROMETHEUS)


def test_a_reader_gets_started(release: Release, desk: Desk) -> None:
    """Run all commands of the page in order, on a cluster without tokenbucket."""
    release.uninstall()
    release.admin.run("delete", "namespace", NAMESPACE, "shop", "--ignore-not-found", timeout_s=240)
    desk.run(blocks((ROOT / GETTING_STARTED).read_text()))


@pytest.mark.parametrize("name", CASES)
def test_an_example_works_as_described(name: str, release: Release, shop: Kubectl, desk: Desk) -> None:
    """Run each section alone, because several sections of a page are choices."""
    place, found = CASES[name]
    desk.add(FILES.get(place, {}))
    with state_of(place)(release, desk.node):
        desk.run(found)
