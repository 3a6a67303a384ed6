"""Cilium's network policies beside limits on the same pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.laboratory import NODE, Laboratory
from tests.e2e_cilium.limits import FAR, LIMITS, NEAR, Limit
from tests.e2e_cilium.network_policies import accept_only

RECEIVING = [limit for limit in LIMITS if limit.direction == "ingress"]


@pytest.fixture(params=RECEIVING, ids=str)
def limit(request: pytest.FixtureRequest, data_plane: DataPlane, lab: Laboratory) -> Iterator[Limit]:
    """Provide a limit on a pod that may receive from the other node's pod alone."""
    found: Limit = request.param
    document = accept_only(str(found), FAR)
    namespace = lab.kubectl.namespace
    lab.kubectl.apply(document)
    try:
        data_plane.wait_enforced(NODE, namespace, str(found), enforced=True)
        yield found
    finally:
        lab.kubectl.delete(document)
    data_plane.wait_enforced(NODE, namespace, str(found), enforced=False)


def test_a_network_policy_is_enforced_beside_a_limit(lab: Laboratory, limit: Limit) -> None:
    """Receive packets of the permitted sender only."""
    assert lab.send(limit, NEAR).arrived_packets == 0
    assert lab.send(limit, FAR).arrived_packets > 0
