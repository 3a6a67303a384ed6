"""The interfaces of a pod that the agent limits, and those that it reports."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent.locate import Locator
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import DataPlane, End, Hook, Interface
from tokenbucket.core.planning.desired import Search
from tokenbucket.core.planning.namespace_moves import Placements
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.errors import KernelError
from tokenbucket.netlink.filters import ForeignFilter, LinkFilters
from tokenbucket.netlink.links import VETH, Link
from tokenbucket.netlink.namespaces import Namespace
from tokenbucket.node import other_limiters
from tokenbucket.node.inside_pods import PodNamespace
from tokenbucket.node.location import AddressLocation, LocationKind
from tokenbucket.node.pod_links import MOST

INODE = 4026532000
HOST_SIDE = Link(7, "veth0", VETH, 5, 2)
NET1 = Link(3, "net1", "macvlan", 0, 9)
ADAPTER = Link(4, "net2", "", None, None, is_hardware=True)
INSIDE = PodNamespace(Namespace(INODE, Path("/run/netns/a")), {}, {}, {})
REFUSED = KernelError("enter", "network namespace", errno.EPERM)
POD = PodId("shop", "web")
IN = Direction.INGRESS


def locate(
    *links: Link,
    veths: tuple[Link, ...] = (HOST_SIDE,),
    inside: PodNamespace | KernelError | None = INSIDE,
    unread: str = "",
    may_enter: bool = True,
    delays: bool = False,
    annotated: frozenset[Direction] = frozenset(),
) -> PodInterfaces:
    """Locate a pod that has these interfaces beside its veths."""

    def enter(_: int) -> PodNamespace | None:
        if isinstance(inside, KernelError):
            raise inside
        return inside

    where = AddressLocation(LocationKind.NAMESPACE, veths, (), (5,), links, unread)
    view: Any = SimpleNamespace(
        interfaces_of=lambda _: where,
        roots={},
        filters={},
        pod_namespaces=SimpleNamespace(enter=enter),
        name_of=lambda interface: f"interface {interface.ifindex}",
    )
    waits = frozenset(Direction) if delays else frozenset()
    search = Search(POD, frozenset({IPv4Address("10.0.0.2")}), waits, delays, may_enter, annotated)
    return Locator(view, Placements(), DataPlane(), {}).locate(search)


def test_interfaces_without_an_end_on_the_node_are_limited_inside_the_pod() -> None:
    """Limit the veth on the node."""
    found = locate(NET1, ADAPTER)
    assert found.ends == {End.HOST: {Interface(7)}}
    assert found.pod_only == {Interface(3, INODE), Interface(4, INODE)}
    assert found.reason is None


def test_a_pod_with_veths_alone_is_not_entered() -> None:
    """Save most of the time of a restart with hundreds of pods."""
    found = locate(inside=REFUSED)
    assert (found.ends, found.reason) == ({End.HOST: {Interface(7)}}, None)


@pytest.mark.parametrize("veths", [(HOST_SIDE,), ()], ids=["beside a veth", "alone"])
@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"inside": REFUSED}, "net1 (macvlan): .*EPERM.*; grant SYS_ADMIN"),
        ({"inside": None}, "net1 (macvlan): .*no path in /run/netns or /proc; grant"),
        ({"may_enter": False}, "net1 (macvlan): .*overhead.*; use a veth"),
    ],
    ids=["not permitted", "no path", "virtual machine"],
)
def test_an_interface_that_cannot_be_limited_is_named(
    problem: dict[str, Any], message: str, veths: tuple[Link, ...]
) -> None:
    """Keep the policy from becoming Ready while a path bypasses the limit."""
    found = locate(NET1, veths=veths, **problem)
    assert found.reason is Reason.INTERFACE_NOT_LIMITED
    assert found.pod_only == frozenset()
    assert bool(found.ends) is bool(veths)
    assert re.match(message.replace("(", r"\(").replace(")", r"\)"), found.message)


def test_interfaces_that_cannot_be_read_are_reported() -> None:
    """Expect any interface among them."""
    found = locate(unread="list interfaces: ENOMEM")
    assert found.reason is Reason.INTERFACE_NOT_LIMITED
    assert found.ends == {End.HOST: {Interface(7)}}


def test_of_very_many_interfaces_the_first_are_limited() -> None:
    """Bound the work for a pod that creates interfaces."""
    found = locate(*(Link(10 + number, f"net{number}", "macvlan", 0, 9) for number in range(MOST + 1)))
    assert len(found.pod_only) == MOST
    assert found.message.startswith(f"net{MOST} (macvlan): ")


def test_packets_that_arrive_at_such_an_interface_can_wait() -> None:
    """Queue them as egress packets at the pod-side end of a veth."""
    found = locate(NET1, delays=True)
    assert found.no_queue == {}
    assert found.ends[End.POD] == {Interface(2, INODE)}


@pytest.mark.parametrize("hook", Hook)
def test_packets_do_not_wait_past_a_program_of_the_pod(hook: Hook) -> None:
    """Keep the order: packets from the ifb device pass no program at the ingress hook."""
    theirs = ForeignFilter(NET1.ifindex, hook, "matchall", 10, 3, 1, "", None)
    inside = replace(INSIDE, filters={NET1.ifindex: LinkFilters((), (theirs,))})
    found = locate(NET1, delays=True, inside=inside)
    reasons = {direction: why.reason for direction, why in found.no_queue.items()}
    assert reasons == ({IN: Reason.NO_QUEUE_IN_POD} if hook is Hook.INGRESS else {})


def test_a_pod_without_any_interface_is_reported() -> None:
    assert locate(veths=()).reason is Reason.NO_INTERFACE


def test_ciliums_bandwidth_manager_also_limits_annotated_pods(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Report it only for directions with an annotation, and only if its map exists."""
    throttle = tmp_path / "cilium_throttle"
    monkeypatch.setattr(other_limiters, "_CILIUM", throttle)
    assert locate(annotated=frozenset({IN})).also_limited == {}
    throttle.touch()
    found = locate(annotated=frozenset({IN})).also_limited
    assert found.keys() == {IN}
    assert "Cilium's bandwidth manager" in found[IN]
    assert locate().also_limited == {}
