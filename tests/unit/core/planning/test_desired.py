"""The desired limits, their attachments, and the reasons of pods without a limit."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, PerPeer, Policy, Rate
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.core.planning.attachment import IFB, DataPlane, End, Hook, HookPoint, Interface, Mechanism
from tokenbucket.core.planning.capabilities import Capabilities, Degradation
from tokenbucket.core.planning.desired import Address, Search, desired
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.plan import Wanted
from tokenbucket.core.planning.pod_limits import Desired, PodInterfaces
from tokenbucket.core.planning.reasons import Effect, Reason

HOST_SIDE, POD_SIDE = Interface(7), Interface(2, namespace=4026532000)
CAPABLE = Capabilities()
NO_QUEUE = Degradation(Reason.NO_FQ, "no fq")
POD = Pod(PodId("shop", "web-0"), {}, frozenset({IPv4Address("10.0.0.2")}))


def located(search: Search, **fields: object) -> PodInterfaces:
    """Locate a pod with one veth, whose namespace is entered only if a limit belongs there."""
    ends = {End.HOST: frozenset({HOST_SIDE})}
    if search.enter:
        ends[End.POD] = frozenset({POD_SIDE})
    return PodInterfaces(ends, **fields)


def wanted_by(
    direction: Direction,
    action: ExceedAction = ExceedAction.DELAY,
    mode: Mode = Mode.ENFORCE,
    enforcement: Mode = Mode.ENFORCE,
    pod: Pod = POD,
    **fields: object,
) -> Desired:
    """Return the desired limits of one policy and one pod."""
    dscp = 8 if action is ExceedAction.MARK else None
    limit = Limit(Rate(10**7), exceed_action=action, dscp=dscp)
    policy = Policy("shop", "web", Selector(frozenset()), {direction: limit}, mode=mode)
    return desired(
        [policy], [pod], lambda search: located(search, **fields), CAPABLE, NodeSettings(enforcement)
    )


def only(result: Desired) -> Wanted:
    """Return the limit without its guard."""
    [wanted] = (wanted for key, wanted in result.wanted.items() if not key.is_guard)
    return wanted


def selects(app: str) -> Selector:
    return Selector(frozenset({Requirement("app", Operator.IN, frozenset({app}))}))


def guards(result: Desired) -> list[Wanted]:
    return [wanted for key, wanted in result.wanted.items() if key.is_guard]


IN, OUT = Direction.INGRESS, Direction.EGRESS
DELAY, DROP, MARK = ExceedAction


@pytest.mark.parametrize(
    ("direction", "action", "point"),
    [
        (IN, DELAY, HookPoint(HOST_SIDE, Hook.EGRESS)),
        (IN, DROP, HookPoint(HOST_SIDE, Hook.EGRESS)),
        (IN, MARK, HookPoint(HOST_SIDE, Hook.EGRESS)),
        (OUT, DELAY, HookPoint(POD_SIDE, Hook.EGRESS)),
        (OUT, DROP, HookPoint(HOST_SIDE, Hook.INGRESS)),
        (OUT, MARK, HookPoint(HOST_SIDE, Hook.INGRESS)),
    ],
)
def test_a_limit_is_attached_where_its_packets_can_be_queued(
    direction: Direction, action: ExceedAction, point: HookPoint
) -> None:
    """Add a queue only at this interface."""
    wanted = only(wanted_by(direction, action))
    assert (wanted.points, wanted.delays) == ({point}, action is DELAY)


def test_a_limit_inside_a_pod_has_a_guard_on_the_node() -> None:
    """Give the guard the rate of the limit, a deeper burst, and no queue. The pod cannot bypass it."""
    found = wanted_by(OUT)
    [guard] = guards(found)
    assert (guard.points, guard.delays) == ({HookPoint(HOST_SIDE, Hook.INGRESS)}, False)
    limit = only(found).slot
    assert guard.slot.config.bits_per_s == limit.config.bits_per_s
    assert guard.slot.config.bytes_burst_q > limit.config.bytes_burst_q
    assert guard.slot.owner == replace(limit.owner, key=limit.owner.key.guard)
    assert [key.is_guard for key in found.active] == [False]


@pytest.mark.parametrize(
    "found",
    [
        wanted_by(IN),
        wanted_by(OUT, DROP),
        wanted_by(OUT, MARK),
        wanted_by(OUT, mode=Mode.OBSERVE),
        wanted_by(OUT, enforcement=Mode.OBSERVE),
        wanted_by(OUT, no_queue={OUT: NO_QUEUE}),
    ],
)
def test_other_limits_have_no_guard(found: Desired) -> None:
    """Try limits that run on the node, and limits that only observe."""
    assert guards(found) == []


def test_enforcement_off_keeps_the_slot_of_a_guard() -> None:
    """Keep its tokens."""
    [off], [on] = guards(wanted_by(OUT, enforcement=Mode.OFF)), guards(wanted_by(OUT))
    assert off == Wanted(on.slot, frozenset())


@pytest.mark.parametrize("direction", Direction)
def test_delay_without_a_queue_is_degraded_to_drop_on_the_node(direction: Direction) -> None:
    """Use the deeper burst of Drop, and report the degradation."""
    drop = wanted_by(direction, DROP)
    degraded = wanted_by(direction, no_queue={direction: NO_QUEUE})
    assert only(degraded) == only(drop)
    assert [(each.reason, each.message) for each in degraded.deviations] == [NO_QUEUE]
    [active] = degraded.active.values()
    assert active.action == "Drop (degraded: no fq)"


@pytest.mark.parametrize("direction", Direction)
def test_a_deficiency_of_one_direction_does_not_degrade_the_other(direction: Direction) -> None:
    """Try a foreign qdisc in the pod."""
    assert only(wanted_by(direction, no_queue={IN if direction is OUT else OUT: NO_QUEUE})).delays


OBSERVING = pytest.mark.parametrize(
    ("mode", "enforcement"), [(Mode.OBSERVE, Mode.ENFORCE), (Mode.ENFORCE, Mode.OBSERVE)]
)


@pytest.mark.parametrize("direction", Direction)
@OBSERVING
def test_observe_counts_packets_that_would_be_delayed_without_a_queue(
    direction: Direction, mode: Mode, enforcement: Mode
) -> None:
    """Attach the limit where Enforce would."""
    wanted, enforced = (
        only(wanted_by(direction, mode=mode, enforcement=enforcement)),
        only(wanted_by(direction)),
    )
    assert wanted.points == enforced.points
    assert not wanted.delays
    assert wanted.slot.config.observe
    assert wanted.slot.config.max_delay_q == enforced.slot.config.max_delay_q > 0


@pytest.mark.parametrize("direction", Direction)
@OBSERVING
def test_an_observing_limit_without_a_queue_is_not_degraded(
    direction: Direction, mode: Mode, enforcement: Mode
) -> None:
    """Count packets that the limit would drop there."""
    observing = wanted_by(direction, mode=mode, enforcement=enforcement, no_queue={direction: NO_QUEUE})
    assert observing.deviations == []
    [active] = observing.active.values()
    assert (active.action, active.degradation) == ("Observe", None)
    assert active.config.max_delay_q == 0


@pytest.mark.parametrize("direction", Direction)
def test_peers_without_a_rate_of_the_pod_are_not_delayed(direction: Direction) -> None:
    """Bound the queue: enter no pod, and report the degradation."""
    asked: list[Search] = []

    def locate(search: Search) -> PodInterfaces:
        asked.append(search)
        return located(search)

    limit = Limit(Rate(), per_peer=PerPeer(Rate(10**7)))
    found = desired(
        [Policy("shop", "web", Selector(frozenset()), {direction: limit})], [POD], locate, CAPABLE
    )
    assert [(search.waits, search.enter) for search in asked] == [(set(), False)]
    assert not only(found).delays
    assert [each.reason for each in found.deviations] == [Reason.UNBOUNDED_QUEUE]
    [active] = found.active.values()
    assert active.action == "Drop (degraded: unbounded queue)"


def test_nothing_is_attached_inside_a_pod_with_an_overhead() -> None:
    """Leave the interface to the runtime of a virtual machine, which fails if it finds a qdisc."""
    in_a_machine = replace(POD, has_overhead=True)
    found = wanted_by(OUT, pod=in_a_machine)
    assert only(found).points == {HookPoint(HOST_SIDE, Hook.INGRESS)}
    assert [each.reason for each in found.deviations] == [Reason.NO_FILTER_IN_POD]
    assert only(wanted_by(IN, pod=in_a_machine)) == only(wanted_by(IN))
    assert not wanted_by(OUT, DROP, pod=in_a_machine).deviations


@pytest.mark.parametrize("action", ExceedAction)
def test_pods_are_entered_only_to_delay_egress(action: ExceedAction) -> None:
    """Avoid the right and the millisecond that it costs."""
    asked: list[bool] = []

    def locate(search: Search) -> PodInterfaces:
        asked.append(search.enter)
        return located(search)

    limit = Limit(Rate(10**7), exceed_action=action, dscp=8 if action is MARK else None)
    desired([Policy("shop", "web", Selector(frozenset()), {OUT: limit})], [POD], locate, CAPABLE)
    assert asked == [action is DELAY]


@pytest.mark.parametrize("direction", Direction)
def test_only_ingress_packets_can_come_from_the_node(direction: Direction) -> None:
    """Give no reserve to egress: inside the pod, it looks like traffic of the node."""
    assert only(wanted_by(direction)).slot.config.node_reserve == (direction is IN)


def test_enforcement_off_keeps_the_slot_and_attaches_nothing() -> None:
    """Keep the tokens."""
    off, on = wanted_by(IN, enforcement=Mode.OFF), wanted_by(IN)
    assert only(off) == Wanted(only(on).slot, frozenset())
    assert off.deviations == []


def test_a_pod_that_has_ended_has_no_limit() -> None:
    """Leave its address to another pod."""
    ended = Pod(POD.id, {}, POD.addresses, ended=True)
    assert wanted_by(IN, pod=ended) == Desired()


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (Pod(POD.id, {}, frozenset()), Reason.NO_ADDRESS),
        (Pod(POD.id, {}, POD.addresses, host_network=True), Reason.HOST_NETWORK),
    ],
)
def test_a_pod_that_cannot_be_limited_is_reported_and_takes_no_slot(pod: Pod, reason: Reason) -> None:
    """Report the reason in the status of the policy."""
    found = wanted_by(IN, pod=pod)
    assert found.wanted == {}
    assert [each.reason for each in found.deviations] == [reason]


def test_pods_that_share_an_address_on_a_second_network_are_found_by_their_own() -> None:
    """Accept networks that assign the same addresses independently."""
    twice = IPv4Address("192.168.1.10")
    first, second = (
        Pod(PodId("shop", name), {}, frozenset({IPv4Address(f"10.0.0.{n}"), twice}))
        for n, name in enumerate("ab", 1)
    )
    by: list[AbstractSet[Address]] = []

    def locate(search: Search) -> PodInterfaces:
        by.append(search.addresses)
        return PodInterfaces({End.HOST: frozenset({Interface(len(by))})})

    policy = Policy("shop", "web", Selector(frozenset()), {IN: Limit(Rate(10**7), exceed_action=DROP)})
    found = desired([policy], [first, second], locate, CAPABLE)
    assert (len(found.active), found.deviations) == (2, [])
    assert by == [each.addresses - {twice} for each in (first, second)]
    assert (
        desired([policy], [first, Pod(PodId("shop", "c"), {}, first.addresses)], locate, CAPABLE).active == {}
    )


def test_of_pods_behind_one_interface_only_the_first_is_limited_there() -> None:
    """Keep the choice in every run and for any order. Report the other pod."""
    pods = [
        Pod(PodId("shop", name), {}, frozenset({IPv4Address(f"10.0.0.{n}")})) for n, name in enumerate("ab")
    ]
    policy = Policy("shop", "web", Selector(frozenset()), {IN: Limit(Rate(10**7))})
    for order in (pods, pods[::-1]):
        found = desired([policy], order, located, CAPABLE)
        assert [key.subject.name for key in found.wanted] == ["a"]
        assert found.active.keys() == found.wanted.keys()
        assert [(each.key.subject.name, each.reason) for each in found.deviations] == [
            ("b", Reason.ADDRESS_CONFLICT)
        ]


@pytest.mark.parametrize(("first", "second"), [(DELAY, DELAY), (DELAY, DROP), (DROP, DELAY)])
def test_of_limits_and_guards_at_one_place_only_those_of_the_first_pod_stay(
    first: ExceedAction, second: ExceedAction
) -> None:
    """Keep the guard of one pod from dropping packets of another."""
    pods = [
        Pod(PodId("shop", name), {"app": name}, frozenset({IPv4Address(f"10.0.0.{number}")}))
        for number, name in enumerate("ab")
    ]
    policies = [
        Policy("shop", name, selects(name), {OUT: Limit(Rate(10**7), exceed_action=action)})
        for name, action in zip("ab", (first, second), strict=True)
    ]
    found = desired(policies, pods, located, CAPABLE)
    assert {key.subject.name for key in found.wanted} == {"a"}
    assert len(guards(found)) == (first is DELAY)
    assert [(each.key.subject.name, each.reason) for each in found.deviations] == [
        ("b", Reason.ADDRESS_CONFLICT)
    ]


@pytest.mark.parametrize("reason", [Reason.NO_INTERFACE, Reason.ADDRESS_CONFLICT])
def test_a_pod_found_only_by_its_limit_keeps_it_and_has_a_reason(reason: Reason) -> None:
    """Expect an address that is gone, or that another pod has too."""
    found = wanted_by(IN, reason=reason, message="gone; the limit stays where it was")
    assert only(found).points == {HookPoint(HOST_SIDE, Hook.EGRESS)}
    assert [each.reason for each in found.deviations] == [reason]


NET1 = Interface(3, namespace=4026532000)


def shared(
    direction: Direction,
    action: ExceedAction,
    capabilities: Capabilities = CAPABLE,
    pod_only: AbstractSet[Interface] = frozenset({NET1}),
) -> Desired:
    """Return the desired limits of a pod with a veth and an interface without an end on the node."""
    limit = Limit(Rate(10**7), exceed_action=action, dscp=8 if action is ExceedAction.MARK else None)
    policy = Policy("shop", "web", Selector(frozenset()), {direction: limit})
    return desired([policy], [POD], lambda search: located(search, pod_only=pod_only), capabilities)


@pytest.mark.parametrize(
    ("direction", "action", "at_veth"),
    [
        (IN, DROP, HookPoint(HOST_SIDE, Hook.EGRESS)),
        (IN, MARK, HookPoint(HOST_SIDE, Hook.EGRESS)),
        (OUT, DROP, HookPoint(HOST_SIDE, Hook.INGRESS)),
        (OUT, MARK, HookPoint(HOST_SIDE, Hook.INGRESS)),
        (OUT, DELAY, HookPoint(POD_SIDE, Hook.EGRESS)),
    ],
)
def test_an_interface_without_an_end_on_the_node_is_limited_at_its_own_hook(
    direction: Direction, action: ExceedAction, at_veth: HookPoint
) -> None:
    """Use the slot of the other interfaces, and a queue if these have one."""
    wanted = only(shared(direction, action))
    assert wanted.points == {at_veth, HookPoint(NET1, Hook(direction.value))}
    assert wanted.delays is (action is DELAY)


def test_a_pod_with_such_an_interface_alone_is_limited_there() -> None:
    limit = Limit(Rate(10**7), exceed_action=DROP)
    policy = Policy("shop", "web", Selector(frozenset()), {IN: limit, OUT: limit})
    found = desired([policy], [POD], lambda _: PodInterfaces(pod_only=frozenset({NET1})), CAPABLE)
    points = {key.direction: wanted.points for key, wanted in found.wanted.items()}
    assert points == {IN: {HookPoint(NET1, Hook.INGRESS)}, OUT: {HookPoint(NET1, Hook.EGRESS)}}
    assert found.deviations == []


@pytest.mark.parametrize("reason", [Reason.NO_FILTER_IN_POD, Reason.CONTENDED_IN_POD])
def test_such_an_interface_that_rejects_a_filter_is_reported_and_the_others_are_limited(
    reason: Reason,
) -> None:
    """Report that a path bypasses the limit. Packets of the veth are still queued."""
    refused = CAPABLE.without({NET1: Degradation(reason, "net1: a foreign filter is in the way")})
    found = shared(OUT, DELAY, refused)
    assert only(found).points == {HookPoint(POD_SIDE, Hook.EGRESS)}
    assert [(each.reason, each.message) for each in found.deviations] == [
        (Reason.INTERFACE_NOT_LIMITED, "net1: a foreign filter is in the way")
    ]


TCX = Mechanism.TCX
WITH_TCX = Capabilities(data_plane=DataPlane(has_tcx=True))
PAST_THE_NODE = WITH_TCX.with_bypass({IN})
DEVICE = Interface(IFB, namespace=4026532000)
RECEIVED = {each: HookPoint(each, Hook.INGRESS, TCX) for each in (POD_SIDE, NET1)}


@pytest.mark.parametrize(
    ("capabilities", "pod_only", "points"),
    [
        (PAST_THE_NODE, set(), {RECEIVED[POD_SIDE]}),
        (PAST_THE_NODE, {NET1}, {RECEIVED[POD_SIDE], RECEIVED[NET1]}),
        (WITH_TCX, {NET1}, {HookPoint(HOST_SIDE, Hook.EGRESS), RECEIVED[NET1]}),
    ],
    ids=["bypassed", "bypassed, and no end on the node", "no end on the node"],
)
def test_packets_past_the_queues_of_the_node_wait_at_an_ifb_device(
    capabilities: Capabilities, pod_only: set[Interface], points: set[HookPoint]
) -> None:
    """Redirect them by the first program that sees them. Prefer a queue of the node if one exists."""
    found = shared(IN, DELAY, capabilities, pod_only)
    wanted = only(found)
    assert wanted.points == points | {HookPoint(DEVICE, Hook.EGRESS, TCX)}
    assert {point for point in wanted.points if wanted.redirects(point)} == points & set(RECEIVED.values())
    assert wanted.queues == {point.interface for point in wanted.points - set(RECEIVED.values())}
    assert found.deviations == []


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        (CAPABLE.with_bypass({IN}), Reason.NO_QUEUE_IN_POD),
        (replace(PAST_THE_NODE, fq=False), Reason.NO_FQ),
        (
            PAST_THE_NODE.without({DEVICE: Degradation(Reason.NO_QUEUE_IN_POD, "no ifb")}),
            Reason.NO_QUEUE_IN_POD,
        ),
        (PAST_THE_NODE.without({DEVICE: Degradation(Reason.CONTENDED_IN_POD, "")}), Reason.CONTENDED_IN_POD),
    ],
    ids=["no tcx", "no fq", "no ifb", "the pod removes the device"],
)
def test_excess_packets_are_dropped_in_the_pod_without_such_a_device(
    capabilities: Capabilities, reason: Reason
) -> None:
    """Keep the limit where the packets pass."""
    found = shared(IN, DELAY, capabilities, set())
    assert [(point.interface, point.hook) for point in only(found).points] == [(POD_SIDE, Hook.INGRESS)]
    assert not only(found).queues
    assert [each.reason for each in found.deviations] == [reason]


def test_an_observing_limit_needs_no_such_device() -> None:
    limit = Limit(Rate(10**7), exceed_action=DELAY)
    policy = Policy("shop", "web", Selector(frozenset()), {IN: limit}, mode=Mode.OBSERVE)
    assert only(desired([policy], [POD], located, PAST_THE_NODE)).points == {RECEIVED[POD_SIDE]}


def test_such_an_interface_that_rejects_a_queue_degrades_the_limit_of_all() -> None:
    """Queue or drop on all interfaces, because they share one bucket."""
    found = shared(OUT, DELAY, CAPABLE.without({NET1: NO_QUEUE}))
    assert only(found).points == {HookPoint(HOST_SIDE, Hook.INGRESS), HookPoint(NET1, Hook.EGRESS)}
    assert [each.reason for each in found.deviations] == [Reason.NO_FQ]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_documented_and_has_a_short_text_if_it_degrades(reason: Reason) -> None:
    """Provide the texts of the status and of the reference page."""
    assert reason.cause.endswith(".")
    assert reason.fix.endswith(".")
    assert bool(reason.short) is (reason.effect is Effect.DEGRADED)
