"""Uninstalling leaves nothing of ours on the nodes, and what belongs to the users."""

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
from tests.e2e.two_limits import POLICIES, TwoLimits, limited, two_limited_pods, unlimited

_NOT_READY = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}


@pytest.fixture
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Pods without a policy. Whatever happens, the chart is installed at the end."""
    with two_limited_pods(release, nodes, "uninstall") as made:
        yield made
    release.install()


def test_nothing_stays_but_the_policies(shop: TwoLimits, shell: NodeShell, nodes: list[str]) -> None:
    """No queueing discipline and so no filter, no pin and no report; traffic is unlimited. With the chart
    installed again, the policies are in force again.
    """
    before = {node: _queues(shell, node) for node in nodes}
    shop.kubectl.apply(*POLICIES)
    shop.wait()
    assert all(_queues(shell, node) != before[node] for node in shop.nodes)
    shop.release.uninstall()
    for node in nodes:
        assert _queues(shell, node) == before[node]
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


def _queues(shell: NodeShell, node: str) -> list[tuple[str, str]]:
    """Link and kind of each queueing discipline that somebody has added on the node."""
    found = json.loads(shell.run(node, "tc", "-json", "qdisc", "show"))
    return sorted((each["dev"], each["kind"]) for each in found if each["kind"] != "noqueue")


def test_a_node_that_cannot_be_reached_is_named(shop: TwoLimits, cluster: Cluster) -> None:
    """Uninstalling ends all the same. What stays on that node is in force, and the next installation's."""
    shop.kubectl.apply(*POLICIES)
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
    """A node whose kubelet and agent are dead, and which the API server has found to be not ready."""
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
