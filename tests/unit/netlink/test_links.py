"""Which interfaces of a pod lead out of it."""

from __future__ import annotations

import pytest

from tokenbucket.netlink.links import VETH, Link


@pytest.mark.parametrize(
    ("kind", "nsid", "leads"),
    [
        ("openvswitch", None, True),
        ("macvlan", 1, True),
        ("macvlan", None, False),
        (VETH, 1, False),
        ("vlan", None, False),
        ("tun", None, False),
    ],
)
def test_interfaces_that_lead_out_of_a_pod(kind: str, nsid: int | None, *, leads: bool) -> None:
    """Compare kinds with and without a namespace of a peer."""
    assert Link(2, "net1", kind, nsid, None).leads_elsewhere is leads
