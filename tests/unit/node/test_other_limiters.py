"""Queues of other components that also limit a pod."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.filters import ForeignFilter, LinkFilters
from tokenbucket.netlink.fq import HANDLE, Root
from tokenbucket.netlink.links import VETH, Link
from tokenbucket.node.other_limiters import find_shapers

VETH_LINK, IFB = Link(7, "veth0", VETH, 5, 2), Link(9, "bwp0123456789ab", "ifb", None, None)
REDIRECT = ForeignFilter(7, Hook.INGRESS, "u32", 1, 3, 0x8000_0800, "", None, redirects_to=9)
BRIDGE = Link(9, "cni0", "bridge", None, None)
IN, OUT = Direction


def view(*roots: Root, device: Link = IFB, foreign: tuple[ForeignFilter, ...] = (REDIRECT,)) -> Any:
    """Return a view of a node with a veth and one further interface."""
    return SimpleNamespace(
        links={7: VETH_LINK, 9: device},
        roots={root.ifindex: root for root in roots},
        filters={7: LinkFilters((), foreign)},
    )


def root(ifindex: int, kind: str = "tbf", handle: int = 0x10000) -> Root:
    return Root(ifindex, kind, handle, 0)


@pytest.mark.parametrize(
    ("seen", "directions"),
    [
        (view(root(7)), {IN}),
        (view(root(7, "htb")), {IN}),
        (view(root(9)), {OUT}),
        (view(root(7), root(9)), {IN, OUT}),
        (view(root(7, "netem"), root(9, "fq_codel")), set()),
        (view(root(7, "fq", HANDLE)), set()),
        (view(root(9), device=BRIDGE), set()),
        (view(root(9), foreign=()), set()),
        (view(), set()),
    ],
)
def test_only_queues_that_shape_the_packets_of_the_pod_limit_it(seen: Any, directions: set) -> None:
    """Include an ifb device if a filter redirects packets of the pod to it."""
    assert find_shapers(seen, [VETH_LINK]).keys() == directions


def test_the_message_names_the_queue_and_its_owner() -> None:
    """Show which component to stop."""
    found = find_shapers(view(root(7), root(9)), [VETH_LINK])
    assert found[IN].startswith("veth0: a tbf qdisc, handle 1:")
    assert "bwp0123456789ab with a tbf qdisc, handle 1: of the CNI bandwidth plugin" in found[OUT]
