"""Delay between real pods on nodes with ``fq``, and the status on nodes without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import server
from tests.e2e.release import Release, condition, policy, until, wait_ready
from tests.e2e.traffic import tcp

RATE = 50_000_000
LIMIT = {"rate": {"bits": "50M"}}
LEAST, MOST = 0.93 * RATE, 1.01 * RATE
"""Of payload: headers are charged, and take 4 percent."""


@pytest.fixture(scope="module")
def shop(release: Release, with_fq: list[str], nodes: list[str]) -> Iterator[Kubectl]:
    """Create a pod with a limit on a node with ``fq``, and its peer on another node."""
    held = with_fq[0]
    other = next((node for node in reversed(nodes) if node != held), held)
    with release.admin.fresh_namespace("delay") as here:
        here.apply(server("held", held, {"app": "web"}), server("peer", other))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield here


@pytest.fixture
def degraded(shop: Kubectl, without_fq: list[str]) -> Iterator[str]:
    """Create a second pod with a limit, on a node without ``fq``."""
    document = server("degraded", without_fq[0], {"app": "web"})
    shop.apply(document)
    shop.wait("condition=Ready", "pod/degraded", timeout_s=180)
    yield "degraded"
    shop.delete(document)


@pytest.fixture(autouse=True)
def _no_policies(shop: Kubectl) -> Iterator[None]:
    yield
    shop.run("delete", "tbp", "--all")


def gets_its_rate(here: Kubectl, client: str, target: str) -> bool:
    """Return whether TCP reaches the rate. Assert that it never exceeds it. Repeat a lower measurement,
    because the machine can be busy.
    """
    for _ in range(3):
        found = tcp(here, client, target).bits_per_s
        assert found < MOST, f"{client} to {target}"
        if found > LEAST:
            return True
    return False


def test_tcp_to_a_pod_reaches_its_rate_and_no_more(shop: Kubectl) -> None:
    """Use the default action."""
    shop.apply(policy("web", "web", ingress=LIMIT))
    wait_ready(shop, "web", 1)
    assert gets_its_rate(shop, "peer", "held")


def test_tcp_from_a_pod_reaches_its_rate_and_no_more(shop: Kubectl) -> None:
    """Delay the traffic inside the network namespace of the pod."""
    shop.apply(policy("web", "web", egress=LIMIT))
    wait_ready(shop, "web", 1)
    assert gets_its_rate(shop, "held", "peer")


def test_tcp_never_exceeds_its_rate_on_a_node_without_fq(shop: Kubectl, degraded: str) -> None:
    """Use Drop, to which Delay is degraded."""
    shop.apply(policy("web", "web", ingress=LIMIT))
    wait_ready(shop, "web", 2)
    assert tcp(shop, "peer", degraded).bits_per_s < MOST


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_the_status_shows_that_delay_is_enforced(shop: Kubectl, direction: str) -> None:
    """Show it in the column and in a condition."""
    shop.apply(policy("web", "web", **{direction: LIMIT}))
    wait_ready(shop, "web", 1)
    assert shop.get("tbp", "web")["status"]["action"] == "Delay"
    assert condition(shop, "web", "Degraded")["status"] == "False"


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_the_status_names_nodes_without_delay(shop: Kubectl, degraded: str, direction: str) -> None:
    """Show the reason as long as such a pod exists."""
    shop.apply(policy("web", "web", **{direction: LIMIT}))
    wait_ready(shop, "web", 2)
    assert shop.get("tbp", "web")["status"]["action"] == "Delay, Drop (degraded: no fq)"
    degraded = condition(shop, "web", "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "NoFq")
    assert "1 pod on 1 node" in degraded["message"]
    shop.run("label", "pod", degraded, "app=other", "--overwrite")
    wait_ready(shop, "web", 1)
    until(lambda: condition(shop, "web", "Degraded")["status"] == "False")
    assert shop.get("tbp", "web")["status"]["action"] == "Delay"


def test_a_removed_limit_leaves_nothing_in_its_pod(shop: Kubectl) -> None:
    """Remove filter and queue."""
    shop.apply(policy("web", "web", egress=LIMIT))
    wait_ready(shop, "web", 1)
    assert "qdisc fq 7462:" in shop.exec("held", "tc", "qdisc", "show", "dev", "eth0")
    shop.run("delete", "tbp", "web")
    until(lambda: "fq 7462:" not in shop.exec("held", "tc", "qdisc", "show", "dev", "eth0"))
    assert shop.exec("held", "tc", "filter", "show", "dev", "eth0", "egress") == ""
