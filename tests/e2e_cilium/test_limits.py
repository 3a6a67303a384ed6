"""Limits on a cluster whose network is Cilium: never more than they allow, and within 0.5 % all of it."""

from __future__ import annotations

import pytest

from tests.e2e_cilium.laboratory import Laboratory
from tests.e2e_cilium.limits import LIMITS, PEERS, Limit
from tests.e2e_cilium.measurement import measure


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_holds_and_drops_no_more_than_the_excess(lab: Laboratory, limit: Limit, peer: str) -> None:
    """Send from and to pods of both nodes and the node itself. Observe counts everything."""
    found = measure(lab, limit, peer)
    assert not found.excess()
    assert not found.shortage()


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("limit", [each for each in LIMITS if each.kind == "drop"], ids=str)
def test_a_limit_holds_for_ipv6(lab: Laboratory, limit: Limit, peer: str) -> None:
    """Send over the other version of IP."""
    found = measure(lab, limit, peer, version=6)
    assert not found.excess()
    assert not found.shortage()
