"""An uninstallation removes everything from the nodes, and keeps the objects of the users."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from cluster import namespace_node
from cluster.cluster import Cluster
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.shape import Node
from tests.e2e.agents import AGENT_PIDS
from tests.e2e.release import Release, until
from tests.e2e.two_limits import NAMES, TwoLimits, limited, two_held_pods, two_limited_pods, unlimited

_NOT_READY = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Create pods without a policy. Install the chart again at the end."""
    with two_limited_pods(release, nodes, "uninstall") as made:
        yield made
    release.install()


@pytest.fixture
def held(release: Release, with_fq: list[str], nodes: list[str]) -> Iterator[TwoLimits]:
    """Create the same for Delay."""
    with two_held_pods(release, with_fq, nodes, "uninstall-delay") as made:
        yield made
    release.install()


@pytest.mark.kubernetes
@pytest.mark.parametrize(
    ("limits", "on_nodes", "in_pods"),
    [("shop", {"clsact"}, set()), ("held", {"clsact", "fq"}, {"clsact", "fq"})],
    ids=["Drop", "Delay"],
)
def test_an_uninstallation_leaves_only_the_policies(
    request: pytest.FixtureRequest,
    shell: NodeShell,
    nodes: list[str],
    limits: str,
    on_nodes: set[str],
    in_pods: set[str],
) -> None:
    """Find no qdisc, filter, pin or report on nodes and in pods. Enforce the policies after another
    installation.
    """
    shop: TwoLimits = request.getfixturevalue(limits)
    before = _queues(shop, shell, nodes)
    shop.apply()
    shop.wait()
    during = _queues(shop, shell, nodes)
    for place in before:
        expected = on_nodes if place in shop.nodes else in_pods if place in NAMES else set()
        assert {kind for _, kind in during[place] - before[place]} == expected, place
    shop.release.uninstall()
    assert _queues(shop, shell, nodes) == before
    for node in nodes:
        assert "tokenbucket" not in shell.run(node, "ls", "/sys/fs/bpf")
    assert not shop.kubectl.items("tokenbucketnodes")
    assert {each["metadata"]["name"] for each in shop.kubectl.items("tbp")} == {"web", "worker"}
    with shop.under_traffic() as flows:
        for flow in flows:
            until(lambda flow=flow: unlimited(flow))  # type: ignore[misc]
        shop.release.install()
        shop.wait()
        for flow in flows:
            flow.forget()
        assert not any(unlimited(flow) for flow in flows)
        for flow in flows:
            limited(flow)


def _queues(shop: TwoLimits, shell: NodeShell, nodes: list[str]) -> dict[str, set[tuple[str, str]]]:
    """Return interface and kind of each added qdisc, by node and by limited pod."""
    show = ("tc", "-json", "qdisc", "show")
    output = {node: shell.run(node, *show) for node in nodes}
    output |= {name: shop.kubectl.exec(name, *show) for name in NAMES}
    return {
        place: {(each["dev"], each["kind"]) for each in json.loads(text) if each["kind"] != "noqueue"}
        for place, text in output.items()
    }


def test_an_uninstallation_cleans_up_without_the_enforcement_configmap(
    shop: TwoLimits, shell: NodeShell
) -> None:
    """Delete the ConfigMap before."""
    shop.apply()
    shop.wait()
    shop.release.kubectl.run("delete", "configmap", "tokenbucket")
    shop.release.uninstall()
    for node in shop.nodes:
        assert "tokenbucket" not in shell.run(node, "ls", "/sys/fs/bpf")
    assert not shop.kubectl.items("tokenbucketnodes")


def test_an_uninstallation_names_an_unreachable_node(shop: TwoLimits, cluster: Cluster) -> None:
    """End, and leave the limits of that node to the next installation."""
    shop.apply()
    shop.wait()
    lost = next(each for each in cluster.nodes if each.name == shop.nodes[1])
    with shop.under_traffic() as (received, sent):
        with _without_agent(shop.kubectl, cluster, lost):
            assert lost.name in shop.release.uninstall()
            until(lambda: unlimited(received))
        shop.release.install()
        shop.wait()
        limited(sent)


@contextlib.contextmanager
def _without_agent(kubectl: Kubectl, cluster: Cluster, node: Node) -> Iterator[None]:
    """Kill kubelet and agent of a node, and wait until the API server reports it as not ready."""
    box = cluster.box(node.name)
    box.stop("kubelet")
    try:
        box.run(["kill", "-KILL", *box.run(["sh", "-c", AGENT_PIDS]).split()])
        # It would find out in a minute, by itself.
        patch = json.dumps({"status": {"conditions": [_NOT_READY]}})
        kubectl.run("patch", "node", node.name, "--subresource=status", f"--patch={patch}")
        yield
    finally:
        namespace_node.start_kubelet(box, node, cluster.place, cluster.programs, cluster.pki)
        kubectl.wait("condition=Ready", f"node/{node.name}")
