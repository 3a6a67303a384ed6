"""Selectors, precedence and defaults."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Burst, Direction, ExceedAction, Limit, Mode, PerPeer, Policy, Rate
from tokenbucket.core.api.selector import Operator, Requirement, Selector
from tokenbucket.core.limits.bucket import bucket_of, describe
from tokenbucket.core.limits.slot import config_of
from tokenbucket.core.planning.precedence import Winners

LIMIT = Limit(Rate(10**6))


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        (Operator.IN, {"web", "db"}, [{"app": "web"}, {"app": "db", "x": "y"}]),
        (Operator.NOT_IN, {"web"}, [{"app": "db"}, {}]),
        (Operator.EXISTS, set(), [{"app": ""}, {"app": "web"}]),
        (Operator.DOES_NOT_EXIST, set(), [{}, {"x": "y"}]),
    ],
)
def test_operators_select_the_same_pods_as_in_kubernetes(
    operator: Operator, values: set[str], matching: list
) -> None:
    """Include pods without the label for NotIn."""
    selector = Selector(frozenset({Requirement("app", operator, frozenset(values))}))
    candidates = [{}, {"x": "y"}, {"app": ""}, {"app": "web"}, {"app": "db"}, {"app": "db", "x": "y"}]
    expected = [labels for labels in candidates if labels in matching]
    assert [labels for labels in candidates if selector.matches(labels) and labels in matching] == expected
    assert all(selector.matches(labels) == (labels in matching) for labels in matching)


def test_an_empty_selector_selects_all_pods_and_requirements_are_joined_by_and() -> None:
    both = Selector(
        frozenset({Requirement("a", Operator.EXISTS), Requirement("b", Operator.IN, frozenset({"1"}))})
    )
    assert Selector().matches({})
    assert both.matches({"a": "", "b": "1"})
    assert not both.matches({"a": "", "b": "2"})


def policy(name: str, priority: int = 0, created: str = "", **limits: Limit) -> Policy:
    directions = {Direction(direction): limit for direction, limit in (limits or {"ingress": LIMIT}).items()}
    return Policy("shop", name, Selector(), directions, priority, created=created)


POD = Pod(PodId("shop", "web-0"), {}, frozenset())
RANKED = [
    policy("z", priority=5, created="2026"),
    policy("y", created="2024"),
    policy("x", created="2025"),
    policy("a"),
    policy("b"),
]


@given(st.permutations(RANKED), st.integers(0, len(RANKED) - 1))
def test_the_winner_does_not_depend_on_the_order(policies: list[Policy], dropped: int) -> None:
    """Prefer the highest priority, then the oldest, then the first name, also among the others."""
    remaining = [each for each in policies if each not in RANKED[:dropped]]
    assert Winners(remaining).of(POD) == {Direction.INGRESS: RANKED[dropped]}


def test_each_direction_has_its_own_winner() -> None:
    """Leave the other direction to the next policy."""
    strong, weak = policy("strong", 9, ingress=LIMIT), policy("weak", 1, ingress=LIMIT, egress=LIMIT)
    assert Winners([weak, strong]).of(POD) == {Direction.INGRESS: strong, Direction.EGRESS: weak}


@given(st.permutations(RANKED))
def test_an_observing_policy_never_overrides_an_enforcing_one(policies: list[Policy]) -> None:
    """Ignore priorities between the modes. Use the normal order within each mode."""
    trial, other = (replace(each, name=f"{each.name}-trial", mode=Mode.OBSERVE) for each in RANKED[:2])
    assert Winners([trial, other, *policies]).of(POD) == {Direction.INGRESS: RANKED[0]}
    assert Winners([other, trial]).of(POD) == {Direction.INGRESS: trial}


def test_policies_of_other_namespaces_or_in_mode_off_select_no_pod() -> None:
    off = Policy("shop", "off", Selector(), {Direction.INGRESS: LIMIT}, mode=Mode.OFF)
    foreign = Policy("other", "foreign", Selector(), {Direction.INGRESS: LIMIT})
    assert Winners([off, foreign]).of(POD) == {}


@pytest.mark.parametrize(
    ("limit", "action", "words"),
    [
        (Limit(Rate(100_000_000)), ExceedAction.DELAY, "100Mbit/s, burst 625kB, Delay 100ms"),
        (Limit(Rate(1_000_000)), ExceedAction.DELAY, "1Mbit/s, burst 32KiB, Delay 193.8ms"),
        (Limit(Rate(100_000_000)), ExceedAction.DROP, "100Mbit/s, burst 6.25MB, Drop"),
        (Limit(Rate(1_000_000)), ExceedAction.DROP, "1Mbit/s, burst 128KiB, Drop"),
        (Limit(Rate(None, 10_000)), ExceedAction.DROP, "10kpkt/s, burst 5000 packets, Drop"),
        (Limit(Rate(None, 10)), ExceedAction.DROP, "10pkt/s, burst 64 packets, Drop"),
        (
            Limit(Rate(10**12, 10**9)),
            ExceedAction.DROP,
            "1Tbit/s, burst 4GiB, 1Gpkt/s, burst 16777216 packets, Drop",
        ),
        (
            Limit(Rate(10**10), max_delay_ns=10**9),
            ExceedAction.DELAY,
            "10Gbit/s, burst 62.5MB, Delay 13.37ms",
        ),
        (Limit(Rate(None, 10**6)), ExceedAction.DELAY, "1Mpkt/s, burst 50000 packets, Delay 11.04ms"),
        (
            Limit(Rate(10**10), per_peer=PerPeer(Rate(10**9))),
            ExceedAction.DELAY,
            "10Gbit/s, burst 4MiB, per peer 1Gbit/s, burst 6.25MB, Delay 4.745ms",
        ),
        (Limit(Rate(10**6), Burst(2048), dscp=8), ExceedAction.MARK, "1Mbit/s, burst 2KiB, Mark DSCP 8"),
        (
            Limit(Rate(10**8), per_peer=PerPeer(Rate(10**7))),
            ExceedAction.DELAY,
            "100Mbit/s, burst 625kB, per peer 10Mbit/s, burst 62.5kB, Delay 100ms",
        ),
        (
            Limit(Rate(10**8), per_peer=PerPeer(Rate(10**6))),
            ExceedAction.DELAY,
            "100Mbit/s, burst 625kB, per peer 1Mbit/s, burst 32KiB, Delay 193.8ms",
        ),
        (
            Limit(Rate(), per_peer=PerPeer(Rate(10**6, 100), Burst(4096), 24, 56)),
            ExceedAction.DROP,
            "per peer (/24, /56) 1Mbit/s, burst 4KiB, 100pkt/s, burst 64 packets, Drop",
        ),
    ],
)
def test_defaults_are_computed_from_the_rate(limit: Limit, action: ExceedAction, words: str) -> None:
    """Use 50 ms of the rate, or 500 ms with Drop, with minimums. Queue at most 16 MiB."""
    assert describe(bucket_of(limit, Mode.ENFORCE, action=action)) == words


@pytest.mark.parametrize("direction", list(Direction))
def test_the_peer_is_the_remote_end_of_each_direction(direction: Direction) -> None:
    """Use the source of ingress and the destination of egress packets."""
    per_peer = PerPeer(Rate(10**7, 1000), Burst(10**5), 24, 56)
    bucket = bucket_of(Limit(Rate(), per_peer=per_peer), Mode.ENFORCE, action=ExceedAction.DROP)
    config = config_of(bucket, direction, node_reserve=True)
    assert config.bits_per_s == config.packets_per_s == 0
    assert config.per_peer
    assert config.per_peer.is_destination == (direction is Direction.EGRESS)
    assert (config.per_peer.bits_per_s, config.per_peer.packets_per_s) == (10**7, 1000)
    assert (config.per_peer.burst_bytes, config.per_peer.burst_packets) == (10**5, 500)
    assert (config.per_peer.ipv4_prefix_length, config.per_peer.ipv6_prefix_length) == (24, 56)
