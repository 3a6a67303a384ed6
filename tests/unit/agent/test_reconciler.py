"""Whole runs of the reconcile loop on a node in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent.executor import Executor
from tokenbucket.agent.observer import Observer
from tokenbucket.agent.queues import Queues
from tokenbucket.agent.reconciler import Reconciler
from tokenbucket.agent.verification import Verifier
from tokenbucket.core.api.annotations import read_annotations
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import (
    Direction,
    ExceedAction,
    Limit,
    Mode,
    Policy,
    Rate,
    RejectedPolicy,
)
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.limits.slot import NO_SLOT, Owner, Role, Slot, SlotConfig, SlotKey
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface, Mechanism
from tokenbucket.core.planning.bypass import Amount, Counted
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import DesiredInput, Outcome
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.filters import Filter, LinkFilters
from tokenbucket.netlink.fq import FQ, HANDLE, Root
from tokenbucket.netlink.links import VETH, Link
from tokenbucket.node.location import AddressLocation, LocationKind

QUEUE = Interface(7)
HERE, THERE = 1, 2
INODE = 4026532000
INSIDE = Interface(2, INODE)
OURS, OF_ANOTHER_LAYOUT = 1, 9
"""Programs."""
LEFT_INSIDE = Filter(2, Hook.EGRESS, 1, OURS)
REFUSED = KernelError("attach", "veth2", errno.EIO)


def policy(action: ExceedAction = ExceedAction.DROP) -> Policy:
    """Return a policy that limits the egress of every pod."""
    limit = Limit(Rate(10**6), exceed_action=action)
    return Policy("shop", "all", Selector(frozenset()), {Direction.EGRESS: limit})


def pod(name: str) -> Pod:
    """Return a pod with the only address."""
    return Pod(PodId("shop", name), {}, frozenset({IPv4Address("10.0.0.1")}))


@dataclass
class Node:
    """A kernel whose address is in namespace ``THERE``. An earlier agent can have left objects ``HERE``."""

    roots: dict[int, Root] = field(default_factory=dict)
    searched: bool = False
    entered: bool = False
    invalidated: bool = False
    slots: dict[int, Slot] = field(default_factory=dict)
    filters: dict[Interface, dict[Hook, Filter]] = field(default_factory=dict)
    queues: set[Interface] = field(default_factory=set)
    refuses: dict[Interface, Exception] = field(default_factory=dict)
    """Errors of changes to interfaces."""
    refuses_filters: dict[Interface, Exception] = field(default_factory=dict)
    detached: list[Interface] = field(default_factory=list)
    refuses_slots: KernelError | None = None
    remove_fq_ends: object = True
    reads: int = 0
    """Of the slots."""
    inside_is: int = HERE
    """The namespace of what is inside a pod."""

    # The view.

    def search(self) -> None:
        self.searched = True

    def refresh(self) -> None:
        pass

    def invalidate_all(self) -> None:
        self.invalidated = True

    @property
    def pod_filters(self) -> Any:
        return SimpleNamespace(mark=lambda *_: None, namespaces=lambda _: set())

    @property
    def pod_namespaces(self) -> Node:
        return self

    @property
    def named(self) -> Node:
        return self

    def holders(self, _: object) -> set[int]:
        return {THERE}

    def enter(self, _: int) -> Any:
        self.entered = True
        return SimpleNamespace(
            namespace=SimpleNamespace(inode=INODE), in_the_way=lambda _: "", roots=self._roots(INODE)
        )

    def _roots(self, namespace: int) -> dict[int, Root]:
        ours = {each.ifindex for each in self.queues if each.namespace == namespace}
        return {ifindex: Root(ifindex, FQ, HANDLE, held=0) for ifindex in ours}

    ifbs = frozenset[Interface]()
    addresses: dict[None, frozenset[Any]] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)

    def all_namespaces(self) -> Iterator[tuple[int, dict[int, LinkFilters], dict[int, Root]]]:
        for namespace in (0, INODE) if self.searched or self.entered else (0,):
            there = {
                each.ifindex: self.filters_at(each) for each in self.filters if each.namespace == namespace
            }
            yield namespace, there, self._roots(namespace) | ({} if namespace else self.roots)

    def filters_at(self, interface: Interface) -> LinkFilters:
        return LinkFilters(tuple(self.filters.get(interface, {}).values()))

    def interfaces_of(self, *_: object) -> AddressLocation:
        return self.leading_to(THERE)

    def leading_to(self, nsid: int) -> AddressLocation:
        return AddressLocation(
            LocationKind.NAMESPACE, (Link(nsid, f"veth{nsid}", VETH, nsid, 2),), nsids=(nsid,)
        )

    def namespace_behind(self, interface: Interface) -> int | None:
        return self.inside_is if interface.namespace else None

    @contextmanager
    def writable(self, interface: Interface) -> Iterator[Interface]:
        if interface in self.refuses:
            raise self.refuses[interface]
        yield interface

    def name_of(self, interface: Interface) -> str:
        return f"veth{interface.ifindex}"

    # The maps.

    count = 16
    previous_layouts = SimpleNamespace(program_ids=frozenset())
    ids = fds = dict.fromkeys(Hook, OURS)

    def read(self) -> dict[int, Slot]:
        self.reads += 1
        return dict(self.slots)

    def write(self, index: int, slot: Slot, *, fresh: bool) -> None:
        del fresh
        if self.refuses_slots:
            raise self.refuses_slots
        self.slots[index] = slot

    def free(self, index: int) -> None:
        del self.slots[index]

    def resolve_slot(self, slot: int, program: int) -> int:
        return slot if program == OURS else NO_SLOT

    def limits_device_in_another_layout(self, *_: object) -> bool:
        return False

    # Changes to an interface.

    @contextmanager
    def attachments(self, interface: Interface) -> Iterator[Any]:
        def attach(point: HookPoint, program: int, slot: int, *, redirects: bool) -> None:
            if interface in self.refuses_filters and point.mechanism is Mechanism.CLSACT:
                raise self.refuses_filters[interface]
            there = Filter(interface.ifindex, point.hook, slot, program, point.mechanism, redirects=redirects)
            self.filters.setdefault(interface, {})[point.hook] = there

        def detach(_: int, hook: Hook, __: Mechanism) -> None:
            self.detached.append(interface)
            del self.filters[interface][hook]

        with self.writable(interface):
            yield SimpleNamespace(attach=attach, detach=detach)

    def remove(self, _: int) -> None:
        """Remove nothing, because there are no stubs."""

    def add_fq(self, interface: Interface, *_: object) -> None:
        self.queues.add(interface)

    def remove_fq(self, interface: Interface, _: int) -> object:
        if isinstance(self.remove_fq_ends, KernelError):
            raise self.remove_fq_ends
        self.queues.discard(interface)
        return self.remove_fq_ends


def reconciler_of(node: Any, *limited: Pod) -> Reconciler:
    """Return the reconciler of a restarted agent, on a node where these pods have slots."""
    owners = {index: Owner(SlotKey(each.id, Direction.EGRESS)) for index, each in enumerate(limited, 1)}
    node.slots |= {index: Slot(owner, SlotConfig()) for index, owner in owners.items()}
    queues = Queues(add_fq=node.add_fq, remove_fq=node.remove_fq)
    executor = Executor(node, node, node, node, SimpleNamespace(write=lambda _: None), queues)
    locks: Any = SimpleNamespace(writing=nullcontext)
    return Reconciler(Observer(node, node, node), executor, locks, Capabilities(), Verifier(node, node))


def inputs(*pods: Pod, action: ExceedAction = ExceedAction.DROP) -> DesiredInput:
    return DesiredInput((policy(action),), pods)


def removing_a_queue(ending: object) -> tuple[Outcome, Node]:
    """Run only the removal of a queue, with this result."""
    node = Node({QUEUE.ifindex: Root(QUEUE.ifindex, FQ, HANDLE, held=3)}, remove_fq_ends=ending)
    return reconciler_of(node).reconcile(DesiredInput()), node


def test_a_queue_with_packets_does_not_fail_the_run() -> None:
    """Read nothing again for it: flows can last for long."""
    outcome, node = removing_a_queue(ending=False)
    assert (outcome.actions, outcome.complete, outcome.waits, node.invalidated) == (0, True, True, False)


def test_an_empty_queue_is_removed() -> None:
    """Leave nothing to do."""
    outcome, _ = removing_a_queue(ending=True)
    assert (outcome.actions, outcome.complete, outcome.waits) == (1, True, False)


def test_the_removal_of_a_queue_is_retried_after_a_failure() -> None:
    """Read everything again, because the view of the node can be wrong."""
    outcome, node = removing_a_queue(ending=KernelError("remove fq", "veth7", errno.EPERM))
    assert (outcome.actions, outcome.complete, node.invalidated) == (0, False, True)


def test_a_pod_with_a_rejected_address_is_checked_again_soon() -> None:
    """Wait for no event, because an action of the same run can remove the cause."""
    outcome = reconciler_of(Node()).reconcile(inputs(pod("web"), pod("other")))
    assert (outcome.complete, outcome.waits) == (True, True)


def test_a_limit_that_an_earlier_agent_left_inside_a_pod_keeps_its_namespace() -> None:
    """Keep it, although the node cannot see it and the pod can have given its address away."""
    node, web = Node(filters={INSIDE: {Hook.EGRESS: LEFT_INSIDE}}), pod("web")
    outcome = reconciler_of(node, web).reconcile(inputs(web))
    assert [interface.ifindex for interface in node.filters if not interface.namespace] == [HERE]
    assert [finding.reason for finding in outcome.deviations] == [Reason.ADDRESS_CONFLICT]


def test_slots_of_another_layout_version_are_not_confused_with_these() -> None:
    """Move some filters to the new version, and leave others."""
    left, web = Filter(2, Hook.EGRESS, 1, OF_ANOTHER_LAYOUT), pod("web")
    node = Node(filters={INSIDE: {Hook.EGRESS: left}})
    reconciler_of(node, web).reconcile(inputs(web))
    assert [interface.ifindex for interface in node.filters if not interface.namespace] == [THERE]


def test_slots_are_read_once_each_round() -> None:
    """Search many namespaces."""
    node, web = Node(filters={INSIDE: {Hook.EGRESS: LEFT_INSIDE}}), pod("web")
    reconciler_of(node, web).reconcile(inputs(web))
    assert node.reads == 1


def test_a_limit_that_the_kernel_rejects_repeatedly_has_a_reason() -> None:
    """Report no single rejection, because interfaces disappear while they are read."""
    node, web = Node(searched=True, refuses_slots=KernelError("write slot", "1", errno.EPERM)), pod("web")
    reconciler = reconciler_of(node)
    first, second = (reconciler.reconcile(inputs(web)) for _ in range(2))
    assert (first.complete, first.deviations, second.complete) == (False, (), False)
    assert first.failing == second.failing == {each.key for each in second.deviations}
    assert {each.reason for each in second.deviations} == {Reason.KERNEL_REJECTS}
    assert "EPERM" in second.deviations[0].message
    assert second.active == {}
    node.refuses_slots = None
    repaired = reconciler.reconcile(inputs(web))
    assert (repaired.deviations, repaired.failing) == ((), frozenset())


def limit_of(outcome: Outcome) -> tuple[str, list[Reason]]:
    """Return the actions of one limit, and the reasons of its deviations."""
    [limit] = outcome.active.values()
    return limit.action, [each.reason for each in outcome.deviations]


def test_egress_packets_are_delayed_inside_the_pod() -> None:
    """Attach everything in one round, with a guard on the node."""
    node = Node()
    outcome = reconciler_of(node).reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Delay", [])
    assert (set(node.filters), node.queues, node.reads) == ({INSIDE, Interface(THERE)}, {INSIDE}, 1)
    roles = {interface: node.slots[there.slot].owner.key.role for interface, there in attached(node)}
    assert roles == {INSIDE: Role.LIMIT, Interface(THERE): Role.GUARD}


def attached(node: Node) -> Iterator[tuple[Interface, Filter]]:
    for interface, filters in node.filters.items():
        yield from ((interface, there) for there in filters.values())


def rejected(*pods: Pod, forbidden: bool = False, enforcement: Mode = Mode.ENFORCE) -> DesiredInput:
    """Return the same policy, of which a restarted agent has seen no valid version."""
    unknown = RejectedPolicy("shop", "all", "uid", 2, "spec.egress.rate: is newer", forbidden)
    return DesiredInput((), pods, rejected=(unknown,), enforcement=enforcement)


@pytest.mark.parametrize("action", [ExceedAction.DROP, ExceedAction.DELAY])
def test_a_restarted_agent_keeps_the_limit_of_a_policy_that_it_rejects(action: ExceedAction) -> None:
    """Keep slot, filters, queue and guard as long as the policy and the pod exist."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    reconciler_of(node).reconcile(inputs(web, action=action))
    before = dict(node.slots), set(attached(node)), set(node.queues)
    assert before[0]
    for _ in range(2):
        outcome = reconciler_of(node).reconcile(rejected(web))
        assert (outcome.actions, outcome.complete) == (0, True)
    assert (node.slots, set(attached(node)), node.queues) == before
    reconciler_of(node).reconcile(DesiredInput(pods=(web,)))
    assert (node.slots, list(attached(node)), node.queues) == ({}, [], set())


@pytest.mark.parametrize(
    "given",
    [rejected(pod("web"), forbidden=True), rejected(), rejected(pod("other"))],
    ids=["its namespace is protected", "its pod is gone", "another pod"],
)
def test_a_restarted_agent_keeps_no_other_limit(given: DesiredInput) -> None:
    """Leave nothing of it."""
    node = Node(searched=True)
    reconciler_of(node).reconcile(inputs(pod("web")))
    reconciler_of(node).reconcile(given)
    assert (node.slots, list(attached(node))) == ({}, [])


def test_mode_off_detaches_a_kept_limit() -> None:
    """Keep its slot, as for all limits."""
    node, web = Node(searched=True), pod("web")
    reconciler_of(node).reconcile(inputs(web))
    reconciler_of(node).reconcile(rejected(web, enforcement=Mode.OFF))
    assert (len(node.slots), list(attached(node))) == (1, [])


def test_a_kept_limit_only_counts_on_a_node_in_observe_mode() -> None:
    """Apply the enforcement mode of the node to all limits."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    reconciler_of(node).reconcile(inputs(web, action=ExceedAction.DELAY))
    reconciler_of(node).reconcile(rejected(web, enforcement=Mode.OBSERVE))
    assert node.slots
    assert all(slot.config.observe for slot in node.slots.values())
    assert node.queues == set()


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
@pytest.mark.parametrize("action", [ExceedAction.DROP, ExceedAction.DELAY])
def test_a_kept_limit_returns_after_the_enforcement_mode(action: ExceedAction, mode: Mode) -> None:
    """Restore its filters, queue and guard, also if the agent restarts in between."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    reconciler_of(node).reconcile(inputs(web, action=action))
    before = {slot.owner: slot.config for slot in node.slots.values()}
    points = {(interface, there.hook) for interface, there in attached(node)}
    assert before
    for enforcement in (mode, mode, Mode.ENFORCE):
        reconciler_of(node).reconcile(rejected(web, enforcement=enforcement))
    assert {slot.owner: slot.config for slot in node.slots.values()} == before
    assert {(interface, there.hook) for interface, there in attached(node)} == points
    assert bool(node.queues) is (action is ExceedAction.DELAY)


def test_a_kept_limit_that_its_policy_only_observes_is_never_enforced() -> None:
    """Distinguish the mode of the policy from that of the node."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    observing = replace(policy(), mode=Mode.OBSERVE)
    for enforcement in (Mode.ENFORCE, Mode.OBSERVE):
        reconciler_of(node).reconcile(DesiredInput((observing,), (web,), enforcement=enforcement))
    for enforcement in (Mode.OBSERVE, Mode.ENFORCE):
        reconciler_of(node).reconcile(rejected(web, enforcement=enforcement))
        assert all(slot.config.observe for slot in node.slots.values())
    assert node.slots


def test_a_kept_limit_without_a_queue_drops_and_does_not_affect_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reject a queue as if another program owned it. Delay packets again once the queue can be added."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    reconciler_of(node).reconcile(inputs(web, action=ExceedAction.DELAY))
    node.queues.clear()
    before, add_fq, rejects = set(node.slots.values()), node.add_fq, True

    def add(interface: Interface, *more: object) -> None:
        if rejects:
            raise KernelError("add fq", "eth0", errno.EEXIST)
        add_fq(interface, *more)

    monkeypatch.setattr(node, "add_fq", add)
    reconciler = reconciler_of(node)
    for _ in range(2):
        assert reconciler.reconcile(rejected(web)).complete
        limits = [slot for slot in node.slots.values() if not slot.owner.key.is_guard]
        assert [slot.config.max_delay_q for slot in limits] == [0]
        reconciler.check_periodically()
    rejects = False
    reconciler.reconcile(rejected(web))
    assert set(node.slots.values()) == before
    assert node.queues == {INSIDE}


def test_a_limit_of_a_recreated_policy_is_not_kept() -> None:
    """Start with generation 1 again."""
    node, web = Node(searched=True), pod("web")
    third = replace(policy(), generation=3)
    reconciler_of(node).reconcile(DesiredInput((third,), (web,)))
    reconciler_of(node).reconcile(rejected(web))
    assert node.slots == {}


def test_annotations_do_not_replace_a_kept_limit() -> None:
    """Give them the lowest rank."""
    node, web = Node(searched=True), pod("web")
    reconciler_of(node).reconcile(inputs(web))
    annotated = read_annotations("shop", {"kubernetes.io/egress-bandwidth": "1P"})
    assert annotated
    reconciler_of(node).reconcile(rejected(replace(web, annotated=annotated)))
    assert [slot.owner.policy for slot in node.slots.values()] == ["all"]


def test_another_policy_replaces_a_kept_limit() -> None:
    """Compare no priorities, because that of the rejected policy is unknown."""
    node, web = Node(searched=True), pod("web")
    reconciler_of(node).reconcile(inputs(web))
    other = replace(policy(), name="other")
    reconciler_of(node).reconcile(replace(rejected(web), policies=(other,)))
    assert [slot.owner.policy for slot in node.slots.values()] == ["other"]


def test_a_limit_without_a_free_slot_for_its_guard_is_enforced_and_degraded() -> None:
    """Name the missing guard, and count the limit once."""
    node = Node()
    node.count = 2
    outcome = reconciler_of(node).reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Delay", [Reason.NO_GUARD])
    [deviation] = outcome.deviations
    assert deviation.key == SlotKey(pod("web").id, Direction.EGRESS)
    assert "all 2 are in use" in deviation.message
    assert set(node.filters) == {INSIDE}


@pytest.mark.parametrize("error", [UnsupportedError("in the way"), REFUSED])
def test_a_limit_whose_guard_is_rejected_is_enforced_and_degraded(error: Exception) -> None:
    """Return a lasting error of the kernel, or occupy the place by another program."""
    node = Node(searched=True, refuses_filters={Interface(THERE): error}, inside_is=THERE)
    reconciler = reconciler_of(node)
    for _ in range(2):
        outcome = reconciler.reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Delay", [Reason.NO_GUARD])
    assert set(node.filters) == {INSIDE}


def test_a_limit_that_cannot_move_into_a_pod_keeps_its_place_from_its_guard() -> None:
    """Leave the limit on the node in the next round."""
    node, web = Node(searched=True), pod("web")
    reconciler = reconciler_of(node)
    reconciler.reconcile(inputs(web))
    seen = []
    node.refuses_filters = {INSIDE: REFUSED}
    read = node.read
    node.read = lambda: seen.append([there.slot for _, there in attached(node)]) or read()  # type: ignore[func-returns-value, method-assign]
    reconciler.reconcile(inputs(web, action=ExceedAction.DELAY))
    assert seen == [[1], [1]]


def test_a_lower_rate_of_a_guard_follows_when_no_packet_of_the_higher_rate_waits() -> None:
    """Return soon, because such packets leave the pod at the higher rate."""
    node, web = Node(searched=True, inside_is=THERE), pod("web")
    reconciler = reconciler_of(node)
    reconciler.reconcile(inputs(web, action=ExceedAction.DELAY))
    [before] = (slot.config for slot in node.slots.values() if slot.owner.key.is_guard)
    limit = Limit(Rate(10**5), exceed_action=ExceedAction.DELAY)
    lower = Policy("shop", "all", Selector(frozenset()), {Direction.EGRESS: limit})
    outcome = reconciler.reconcile(DesiredInput((lower,), (web,)))
    rates = {slot.owner.key.role: slot.config.bits_per_s for slot in node.slots.values()}
    assert rates == {Role.LIMIT: 10**5, Role.GUARD: before.bits_per_s}
    assert (outcome.complete, outcome.waits) == (True, True)


@pytest.mark.parametrize("error", [UnsupportedError("in the way"), REFUSED])
def test_a_pod_that_rejects_a_queue_is_limited_on_the_node_in_the_same_run(error: Exception) -> None:
    """Never delay packets without a queue that holds them."""
    node = Node(refuses={INSIDE: error})
    outcome = reconciler_of(node).reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Drop (degraded: no fq)", [Reason.NO_FQ])
    assert (set(node.filters), node.queues, node.reads) == ({Interface(THERE)}, set(), 2)
    assert outcome.complete


@pytest.mark.parametrize("error", [UnsupportedError("in the way"), REFUSED])
def test_a_pod_that_rejects_a_filter_is_limited_on_the_node_in_the_same_run(error: Exception) -> None:
    """Remove the queue, and remember the rejection until the next full run."""
    node = Node(searched=True, refuses_filters={INSIDE: error})
    reconciler = reconciler_of(node)
    outcome = reconciler.reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Drop (degraded: no filter in the pod)", [Reason.NO_FILTER_IN_POD])
    assert (set(node.filters), node.queues, node.reads) == ({Interface(THERE)}, set(), 2)
    again = reconciler.reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
    assert (limit_of(again), again.actions, node.reads) == (limit_of(outcome), 0, 3)


@pytest.mark.parametrize("error", [UnsupportedError("in the way"), REFUSED])
def test_a_limit_stays_on_the_node_if_the_pod_rejects_its_filter(error: Exception) -> None:
    """Declare Delay instead of Drop. The limit is degraded."""
    node, web = Node(searched=True), pod("web")
    reconciler = reconciler_of(node)
    reconciler.reconcile(inputs(web))
    node.refuses_filters = {INSIDE: error}
    outcome = reconciler.reconcile(inputs(web, action=ExceedAction.DELAY))
    assert limit_of(outcome) == ("Drop (degraded: no filter in the pod)", [Reason.NO_FILTER_IN_POD])
    assert (set(node.filters), node.detached) == ({Interface(THERE)}, [])


def test_a_node_that_rejects_something_in_every_round_is_retried() -> None:
    """Count the actions that failed as not enforced."""
    node, web = Node(searched=True), pod("web")
    reconciler = reconciler_of(node)

    def other_interfaces(*_: object) -> AddressLocation:
        nsid = node.reads + 100
        node.refuses = {Interface(nsid): REFUSED}
        return node.leading_to(nsid)

    node.interfaces_of = other_interfaces  # type: ignore[method-assign]
    ingress = Limit(Rate(10**6), exceed_action=ExceedAction.DELAY)
    declared = Policy("shop", "all", Selector(frozenset()), {Direction.INGRESS: ingress})
    outcome = reconciler.reconcile(DesiredInput((declared,), (web,)))
    assert (node.reads, outcome.complete, outcome.active, node.slots) == (3, False, {}, {})


def test_a_filter_that_a_pod_removes_repeatedly_moves_to_the_node() -> None:
    """Use the host-side interface, which the pod cannot change."""
    node = Node(searched=True)
    reconciler = reconciler_of(node)
    for _ in range(7):
        outcome = reconciler.reconcile(inputs(pod("web"), action=ExceedAction.DELAY))
        node.filters.pop(INSIDE, None)
    assert limit_of(outcome) == ("Drop (degraded: contended in the pod)", [Reason.CONTENDED_IN_POD])
    assert set(node.filters) == {Interface(THERE)}


def test_a_queue_that_is_removed_repeatedly_is_given_up() -> None:
    """Avoid lost packets at each change. A queue that the agent removes can return at any time."""
    node: Any = Node()
    added: list[Interface] = []
    queues = Queues(add_fq=lambda place, *_: added.append(place), remove_fq=lambda *_: True)  # type: ignore[arg-type]
    for _ in range(20):
        assert not queues.add(node, QUEUE)
        queues.remove(node, [QUEUE])
    assert not any(queues.add(node, QUEUE) for _ in range(6))
    assert queues.add(node, QUEUE) == "veth7: tokenbucket's fq was removed more than 5 times in a minute"
    assert len(added) == 26


def test_packets_from_before_an_attachment_do_not_bypass_the_limit() -> None:
    """Start the counters of the next check after it, so that no limit is reported falsely."""
    reconciler, web = reconciler_of(Node()), pod("web")
    key, watch = SlotKey(web.id, Direction.EGRESS), reconciler.verifier.bypass
    watch.compare({key: Counted(Amount(0), Amount(0))})
    assert reconciler.reconcile(inputs(web)).actions
    for packets in (10_000, 20_000):
        watch.compare({key: Counted(Amount(packets), Amount(0))})
        assert not watch.bypassed
    watch.compare({key: Counted(Amount(30_000), Amount(0))})
    assert watch.bypassed == {key}


def test_the_report_counts_attachments() -> None:
    """Count no attachment of a pod without an interface."""
    node, web = Node(searched=True), pod("web")
    outcome = reconciler_of(node).reconcile(inputs(web))
    assert outcome.attachments == {"clsact/ingress": 1}
    node.refuses[Interface(THERE)] = KernelError("attach", "veth", errno.EPERM)
    node.filters.clear()
    assert reconciler_of(node).reconcile(inputs(web)).attachments == {}


@pytest.mark.parametrize("redirects", [True, False])
def test_a_restarted_agent_sees_in_the_kernel_that_packets_bypass_the_node(*, redirects: bool) -> None:
    """Accept a limit that delays ingress in the pod as proof, and not a program that only drops."""
    there = Filter(INSIDE.ifindex, Hook.INGRESS, 1, OURS, Mechanism.TCX, redirects=redirects)
    node = Node(searched=True, filters={INSIDE: {Hook.INGRESS: there}})
    node.links[THERE] = Link(THERE, "veth", VETH, THERE, INSIDE.ifindex)
    anything: Any = node
    found = Observer(anything, anything, anything).survey(Capabilities())
    assert (Direction.INGRESS in found.data_plane.bypassed) is redirects
