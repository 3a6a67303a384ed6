"""Agents and a controller of different versions side by side, as in a canary or a partial upgrade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.node_shell import NodeShell
from tests.e2e.image import LAYOUT_TAG
from tests.e2e.release import Release, condition, until
from tests.e2e.two_limits import NAMES, TwoLimits, layouts, two_limited_pods

pytestmark = pytest.mark.usefixtures("cluster")  # only its nodes have the other version's image
_CANARY = "tokenbucket.dev/canary"


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Enforce both limits. Restore one version at the end."""
    if len(nodes) < 2:
        pytest.skip("the cluster has one node: nothing to be beside one another")
    with two_limited_pods(release, nodes, "versions") as made:
        made.apply()
        made.wait()
        yield made
        release.install()
        made.wait()


def agree(shop: TwoLimits, priority: int) -> None:
    """Assert that agents and controller agree on an edit that keeps the limits."""
    shop.apply(priority=priority)
    shop.wait()
    for name in NAMES:
        status = shop.kubectl.get("tbp", name)["status"]
        assert (status["pods"]["summary"], status["nodes"]["unavailable"]) == ("1/1", 0)
        assert condition(shop.kubectl, name, "Degraded")["status"] == "False"


def wait_pins(shop: TwoLimits, shell: NodeShell, *versions: str) -> None:
    """Wait until these are the only versions of pinned maps on the two nodes."""
    wanted = [[layout] for layout in versions]
    until(lambda: [layouts(shell, node) for node in shop.nodes] == wanted)


def test_a_canary_works_beside_agents_and_a_controller_of_another_version(
    shop: TwoLimits, shell: NodeShell
) -> None:
    """Select it by the label of the node."""
    node = shop.nodes[0]
    shop.kubectl.run("label", "node", node, f"{_CANARY}=true")
    try:
        with shop.unbroken():
            shop.release.install(
                agent__canary__enabled="true", agent__canary__image__tag=LAYOUT_TAG.rpartition(":")[2]
            )
            shop.release.kubectl.rolled_out("daemonset/tokenbucket-agent-canary", timeout_s=240)
            wait_pins(shop, shell, "v3", "v2")
            agree(shop, priority=1)
            shop.release.install()
            wait_pins(shop, shell, "v2", "v2")
    finally:
        shop.kubectl.run("label", "node", node, f"{_CANARY}-")


def test_a_controller_works_with_agents_of_another_version(shop: TwoLimits, shell: NodeShell) -> None:
    """Exchange the versions."""
    with shop.unbroken():
        deployment = "deployment/tokenbucket-controller"
        shop.release.kubectl.run("set", "image", deployment, f"*={LAYOUT_TAG}")
        shop.release.wait()
        wait_pins(shop, shell, "v2", "v2")
        agree(shop, priority=1)
        shop.release.kubectl.run("rollout", "undo", deployment)
        shop.release.wait()
