"""A limit of a pod is exact, once a night on each version of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import pod, server
from tests.e2e.release import Release, policy, wait_ready
from tests.e2e.traffic import udp

pytestmark = pytest.mark.kubernetes
RATE = 5_000_000
LIMIT = {"rate": {"bits": "5M"}, "burst": {"bytes": "64Ki"}, "exceedAction": "Drop"}
SECONDS = 20
TRIES = 3
"""A busy machine may not offer the rate all the time, and less traffic arrives."""


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    with release.admin.fresh_namespace("exact") as here:
        here.apply(server("web", nodes[0], {"app": "web"}), pod("client", nodes[-1], {"app": "client"}))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield here


@pytest.mark.parametrize(("direction", "app"), [("ingress", "web"), ("egress", "client")])
def test_a_limit_is_exact(direction: str, app: str, shop: Kubectl) -> None:
    """Measure within 0.5 % from one node to another."""
    shop.apply(policy("exact", app, **{direction: LIMIT}))
    try:
        wait_ready(shop, "exact", 1)
        flows = [udp(shop, "client", "web", 3 * RATE, seconds=SECONDS) for _ in range(TRIES)]
    finally:
        shop.run("delete", "tbp", "exact")
    shares = [flow.bits_per_s / RATE for flow in flows]
    assert 0.995 < max(shares) < 1.005, shares
