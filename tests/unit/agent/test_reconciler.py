"""Whole passes on a node of the test's own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent import queues
from tokenbucket.agent.outcome import Outcome
from tokenbucket.agent.queues import Queues
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.limits.slot import NO_SLOT, Owner, Slot, SlotConfig, SlotKey
from tokenbucket.core.planning.hook import Hook, HookPoint, Interface
from tokenbucket.core.planning.plan import Attach, Attached, Detach, Observed, Plan
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.filters import Filter, LinkFilters
from tokenbucket.netlink.links import VETH, Link
from tokenbucket.netlink.location import AddressLocation, Place
from tokenbucket.netlink.queues import FQ, HANDLE, Root

QUEUE = Interface(7)
HERE, THERE = 1, 2
OURS, OF_ANOTHER_LAYOUT = 1, 9
"""Programs."""
LIMIT = Limit(Rate(10**6), exceed_action=ExceedAction.DROP)
POLICY = Policy("shop", "all", Selector(frozenset()), {Direction.EGRESS: LIMIT})


def pod(name: str) -> Pod:
    """A pod that is declared with the one address that there is."""
    return Pod(PodId("shop", name), {}, frozenset({IPv4Address("10.0.0.1")}))


class View:
    """A node. An agent before has left a filter inside a pod ``HERE``, whose address is ``THERE``."""

    def __init__(self, roots: dict[int, Root], prog_id: int) -> None:
        self.roots, self.prog_id = roots, prog_id
        self.invalidated = False
        self.pod_namespaces = self
        self.searched = False
        self.known: dict[int, SimpleNamespace] = {}

    def search(self) -> None:
        self.searched = True

    def refresh(self) -> None:
        pass

    def everywhere(self) -> Iterator[tuple[int, dict[int, LinkFilters], dict[int, Root]]]:
        yield 0, {}, self.roots
        if self.searched:
            yield 4026532000, {2: LinkFilters((Filter(2, Hook.EGRESS, 1, self.prog_id),))}, {}

    def filters_at(self, _: Interface) -> LinkFilters:
        return LinkFilters()

    def interfaces_of(self, *_: object) -> AddressLocation:
        return self.leading_to(THERE)

    def leading_to(self, nsid: int) -> AddressLocation:
        return AddressLocation(Place.NAMESPACE, (Link(nsid, f"veth{nsid}", VETH, nsid, 2),), nsids=(nsid,))

    def namespace_behind(self, interface: Interface) -> int | None:
        return HERE if interface.namespace else None

    @contextmanager
    def changing(self, interface: Interface) -> Iterator[None]:
        assert interface == QUEUE
        yield

    def name_of(self, interface: Interface) -> str:
        return f"veth{interface.ifindex}"

    def invalidate_all(self) -> None:
        self.invalidated = True


def agent(
    *limited: Pod, roots: dict[int, Root] | None = None, prog_id: int = OURS
) -> tuple[Reconciler, View]:
    """One that has just started, on a node where these pods have slots, and a filter runs that program."""
    owners = {index: Owner(SlotKey(each.id, Direction.EGRESS)) for index, each in enumerate(limited, 1)}
    slots = {index: Slot(owner, SlotConfig()) for index, owner in owners.items()}
    view = View(roots or {}, prog_id)
    programs = SimpleNamespace(ids=dict.fromkeys(Hook, OURS))
    locks = SimpleNamespace(writing=nullcontext)
    maps = SimpleNamespace(
        read=lambda: slots,
        count=16,
        resolve_slot=lambda slot, program: slot if program == OURS else NO_SLOT,
        limits_device_in_another_layout=lambda *_: False,
    )
    running = SimpleNamespace(deviations=lambda _: [], not_running=frozenset())
    node: Any = (view, maps, programs, locks, Queues(available=True), running)
    return Reconciler(*node), view


def removing_a_queue(monkeypatch: pytest.MonkeyPatch, ending: object) -> tuple[Outcome, View]:
    """A pass of nothing but the removal of a queue, which ends like that."""

    def remove_fq(*_: object) -> object:
        if isinstance(ending, KernelError):
            raise ending
        return ending

    monkeypatch.setattr(queues, "remove_fq", remove_fq)
    reconciler, view = agent(roots={QUEUE.ifindex: Root(QUEUE.ifindex, FQ, HANDLE, held=3)})
    return reconciler.run([], []), view


def test_a_queue_that_holds_packets_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may do so for as long as flows last: nothing is read anew for that, and no pass is incomplete."""
    outcome, view = removing_a_queue(monkeypatch, ending=False)
    assert (outcome.actions, outcome.complete, outcome.waits, view.invalidated) == (0, True, True, False)


def test_an_empty_queue_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left to do."""
    outcome, _ = removing_a_queue(monkeypatch, ending=True)
    assert (outcome.actions, outcome.complete, outcome.waits) == (1, True, False)


def test_a_queue_that_cannot_be_removed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything read anew: what is known of the node may be wrong."""
    outcome, view = removing_a_queue(monkeypatch, ending=KernelError("remove fq", "veth7", errno.EPERM))
    assert (outcome.actions, outcome.complete, view.invalidated) == (0, False, True)


def test_a_pod_that_is_refused_an_address_is_looked_at_again_soon() -> None:
    """What makes room for it may be an action of the pass that refused it, and those make no event."""
    reconciler, _ = agent()
    outcome = reconciler.run([POLICY], [pod("web"), pod("other")])
    assert (outcome.complete, outcome.waits) == (True, True)


def test_a_limit_that_an_agent_before_left_inside_a_pod_keeps_it_at_home() -> None:
    """It cannot be seen from the node's side, and the pod's address may have been given away meanwhile."""
    web = pod("web")
    reconciler, _ = agent(web)
    wish, _, _ = reconciler._plan([POLICY], [web], Mode.ENFORCE)
    [wanted] = wish.wanted.values()
    assert [point.interface.ifindex for point in wanted.points] == [HERE]
    assert [finding.reason for finding in wish.findings] == [Reason.ADDRESS_CONFLICT]


def test_a_number_that_a_filter_of_another_layout_names_means_none_of_these_slots() -> None:
    """Where some filters have moved over and some could not yet."""
    web = pod("web")
    reconciler, _ = agent(web, prog_id=OF_ANOTHER_LAYOUT)
    wish, _, _ = reconciler._plan([POLICY], [web], Mode.ENFORCE)
    [wanted] = wish.wanted.values()
    assert [point.interface.ifindex for point in wanted.points] == [THERE]


def test_a_limit_that_the_kernel_refuses_again_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once is nothing: interfaces go while they are being looked at."""

    def refuse(*_: object) -> None:
        raise KernelError("write slot", "1", errno.EPERM)

    monkeypatch.setattr(Reconciler, "_apply", refuse)
    reconciler, view = agent()
    view.searched = True
    web = pod("web")
    first, second = (reconciler.run([POLICY], [web]) for _ in range(2))
    assert (first.complete, first.findings, second.complete) == (False, (), False)
    assert {each.reason for each in second.findings} == {Reason.KERNEL_REFUSES}
    assert "EPERM" in second.findings[0].message
    assert second.in_force == {}
    monkeypatch.setattr(Reconciler, "_apply", lambda *_: None)
    assert reconciler.run([POLICY], [web]).findings == ()


@pytest.mark.parametrize("error", [UnsupportedError("in the way"), KernelError("attach", "eth0", errno.EIO)])
def test_a_filter_that_cannot_be_inside_a_pod_takes_none_from_the_nodes_side(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Delay is declared instead of Drop: the limit stays where it is, and is degraded in the next pass."""
    inside, outside = (HookPoint(Interface(2, space), Hook.EGRESS) for space in (4026532000, 0))
    done: list[object] = []

    def apply(_: Reconciler, action: object) -> None:
        if isinstance(action, Attach):
            raise error
        done.append(action)

    monkeypatch.setattr(Reconciler, "_apply", apply)
    reconciler, _ = agent()
    key = SlotKey(pod("web").id, Direction.EGRESS)
    observed = Observed({}, {outside: Attached(1, current=True)}, 16)
    found = reconciler._act(Plan((Attach(inside, 1), Detach(outside)), ()), observed, {inside: key})
    assert (done, found.failures, found.missing) == ([], 1, {key})
    refused = reconciler.queues.why_not(reconciler.view, [inside.interface], {})
    assert refused and refused[0] is Reason.NO_FILTER_IN_POD


def test_a_queue_that_somebody_goes_on_removing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it comes and goes packets are lost. What we remove ourselves may come back at any time."""
    view: Any = View({}, OURS)
    added: list[int] = []
    monkeypatch.setattr(queues, "add_fq", lambda _connection, ifindex, _packets: added.append(ifindex))
    monkeypatch.setattr(queues, "remove_fq", lambda *_: True)
    ours = Queues(available=True)
    for _ in range(20):
        assert ours.add(view, [QUEUE])
        ours.remove(view, [QUEUE])
    assert all(ours.add(view, [QUEUE]) for _ in range(6))
    assert (ours.add(view, [QUEUE]), len(added)) == (False, 26)
    assert ours.why_not(view, [QUEUE], {}) == (
        Reason.NO_FQ,
        "veth7: our fq was removed more than 5 times in a minute; Drop is in force",
    )
