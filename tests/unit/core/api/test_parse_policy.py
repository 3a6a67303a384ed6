"""Parsing of policies: valid documents, rejected documents, and no third outcome."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import (
    FEATURES,
    Burst,
    Direction,
    ExceedAction,
    Limit,
    Mode,
    PerPeer,
    Rate,
    features_of,
)
from tokenbucket.errors import SpecError


def document(**changes: Any) -> dict[str, Any]:
    """Return a valid policy. ``spec__ingress__rate={...}`` changes a field, and ``...`` removes it."""
    found: dict[str, Any] = {
        "apiVersion": "tokenbucket.dev/v1alpha1",
        "kind": "TokenBucketPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": {"rate": {"bits": "100M"}}},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = found
        for name in parents:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return found


def problems(**changes: Any) -> dict[str, str]:
    """Return the problems of a changed policy, by field."""
    with pytest.raises(SpecError) as caught:
        parse_policy(document(**changes))
    assert str(caught.value).startswith("TokenBucketPolicy ")
    return {problem.field: str(problem) for problem in caught.value.problems}


def test_every_field_is_parsed() -> None:
    """Store each field in the unit of its name."""
    policy = parse_policy(
        document(
            metadata={
                "name": "web",
                "namespace": "shop",
                "uid": "u",
                "generation": 3,
                "creationTimestamp": "t",
            },
            spec={
                "podSelector": {"matchLabels": {"app": "web"}},
                "priority": 7,
                "mode": "Observe",
                "ingress": {
                    "rate": {"bits": "1.5G", "packets": "10k"},
                    "burst": {"bytes": "512Ki", "packets": 64},
                    "perPeer": {"rate": {"bits": "1M"}, "ipv4PrefixLength": 24, "ipv6PrefixLength": 56},
                    "maxDelay": "100ms",
                },
                "egress": {"rate": {"packets": 5}, "exceedAction": "Mark", "dscp": 10},
            },
        )
    )
    assert policy.limits[Direction.INGRESS] == Limit(
        Rate(1_500_000_000, 10_000),
        Burst(524_288, 64),
        PerPeer(Rate(1_000_000), Burst(), 24, 56),
        ExceedAction.DELAY,
        100_000_000,
    )
    assert policy.limits[Direction.EGRESS] == Limit(Rate(None, 5), exceed_action=ExceedAction.MARK, dscp=10)
    assert (policy.priority, policy.mode, policy.uid, policy.generation) == (7, Mode.OBSERVE, "u", 3)
    assert policy.selector.matches({"app": "web"})
    assert not policy.selector.matches({"app": "db"})


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        ("100Mi", "did you mean 100M?"),
        ("100Ki", "did you mean 100k?"),
        ("100m", "did you mean 100M?"),
        ("100u", "did you mean 100M?"),
        ("100Mbps", "did you mean 100M?"),
        ("100Mbit", "did you mean 100M?"),
        ("100Mbit/s", "did you mean 100M?"),
        ("100kbit", "did you mean 100k?"),
        ("100K", "did you mean 100k?"),
        ("100mbit", "did you mean 100M?"),
        ("100 M", "is not a quantity"),
        ("fast", "is not a quantity"),
        ("", "is not a quantity"),
        ("1e", "unknown suffix"),
        ("٣M", "is not a quantity"),
        ("7999", "must be from 8k to 1T"),
        ("1.1T", "must be from 8k to 1T"),
        ("-1", "must be from 8k to 1T"),
        (0, "must be from 8k to 1T"),
        (10**400, "more than 40 characters"),
        ("9" * 500, "more than 40 characters"),
        ("1e999", "must be from 8k to 1T"),
        ("8000.5", "must be a whole number"),
        (True, "is not a quantity"),
        (100.5, "is not a quantity"),
        (float("nan"), "is not a quantity"),
        (["100M"], "is not a quantity"),
        ({"value": 1}, "is not a quantity"),
        (b"100M", "is not a quantity"),
    ],
)
def test_the_error_of_an_invalid_rate_names_the_correct_one(value: object, fix: str) -> None:
    """Reject common mistakes about units, and suggest the intended value."""
    assert fix in problems(spec__ingress__rate={"bits": value})["spec.ingress.rate.bits"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rate.packets", "1.5", "whole number"),
        ("rate.packets", "500m", "did you mean 500M?"),
        ("rate.packets", "2G", "from 1 to 1G"),
        ("burst.bytes", "63", "from 64 to 4Gi"),
        ("burst.bytes", "5Gi", "from 64 to 4Gi"),
        ("burst.bytes", "64kb", "did you mean 64k?"),
        ("burst.packets", 5, "needs rate.packets"),
        ("maxDelay", "25", "is not a duration"),
        ("maxDelay", 25, "is not a duration"),
        ("maxDelay", "4ms", "from 5ms to 1s"),
        ("maxDelay", "1001ms", "from 5ms to 1s"),
        ("maxDelay", "-5ms", "is not a duration"),
        ("queue", "fair", "did you mean Fair?"),
        ("dscp", 10, "no meaning with exceedAction Delay"),
        ("exceedAction", "drop", "did you mean Drop?"),
        ("exceedAction", 1, "must be one of"),
        ("exceedAction", ["Drop"], "must be one of"),
        ("perPeer", {}, "is missing"),
        ("perPeer", [], "must be a mapping"),
        ("perPeer.rate", {"bits": "1"}, "8k to 1T"),
        ("perPeer.ipv4PrefixLength", 33, "from 1 to 32"),
        ("perPeer.ipv6PrefixLength", "64", "whole number from 1 to 128"),
        ("rate", "100M", "must be a mapping"),
        ("rate", [], "must be a mapping"),
        ("bandwidth", "100M", "is not a field"),
        ("Rate", {}, "did you mean rate?"),
    ],
)
def test_the_error_of_a_limit_names_path_value_and_fix(path: str, value: object, message: str) -> None:
    limit: dict[str, Any] = {"rate": {"bits": "100M"}}
    *parents, last = path.split(".")
    place = limit
    for name in parents:
        place = place.setdefault(name, {"rate": {"bits": "1M"}} if name == "perPeer" else {})
    place[last] = value
    found = problems(spec__ingress=limit)
    assert any(
        field.startswith(f"spec.ingress.{path}") and message in text for field, text in found.items()
    ), found


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"apiVersion": "v1"}, "apiVersion", "must be tokenbucket.dev/v1alpha1"),
        ({"kind": "Policy"}, "kind", "must be TokenBucketPolicy"),
        ({"spec": ...}, "spec", "limits nothing"),
        ({"spec": []}, "spec", "must be a mapping"),
        ({"spec__ingress": ...}, "spec", "limits nothing"),
        ({"spec__podSelector": ...}, "spec.podSelector", "{} selects all pods"),
        ({"spec__podSelector": "app=web"}, "spec.podSelector", "must be a mapping"),
        ({"spec__selector": {}}, "spec.selector", "did you mean podSelector?"),
        ({"spec__priority": 1001}, "spec.priority", "from 0 to 1000"),
        ({"spec__priority": True}, "spec.priority", "whole number"),
        ({"spec__mode": "off"}, "spec.mode", "did you mean Off?"),
        ({"spec__ingress": {}}, "spec.ingress.rate", "such as {bits: 100M}"),
        ({"metadata": {}}, "metadata.name", "is missing"),
        ({"metadata__name": "Web_1"}, "metadata.name", "lower-case"),
        ({"metadata__name": 5}, "metadata.name", "must be a string"),
        ({"metadata__namespace": ""}, "metadata.namespace", "lower-case"),
        ({"spec__ingress__exceedAction": "Mark"}, "spec.ingress.dscp", "Mark needs it"),
        (
            {"spec__ingress__exceedAction": "Drop", "spec__ingress__queue": "Fair"},
            "spec.ingress.queue",
            "no meaning with exceedAction Drop",
        ),
        (
            {"spec__ingress__perPeer": {"rate": {"bits": "1M"}}, "spec__ingress__queue": "Fair"},
            "spec.ingress.queue",
            "cannot be Fair with perPeer",
        ),
        (
            {"spec__podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.podSelector.matchExpressions[0].values",
            "at least one",
        ),
        (
            {"spec__podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
            "spec.podSelector.matchExpressions[0].operator",
            "must be one of",
        ),
        (
            {"spec__podSelector": {"matchLabels": {"a": 1}}},
            "spec.podSelector.matchLabels.a",
            "must be a string",
        ),
        (
            {"spec__ingress": {"rate": {"bits": "8k"}, "burst": {"bytes": "1Gi"}}},
            "spec.ingress.burst.bytes",
            "more than a day",
        ),
    ],
)
def test_the_error_of_a_document_names_the_field(changes: dict[str, Any], field: str, message: str) -> None:
    """Include rules across fields."""
    assert message in problems(**changes)[field]


def test_all_problems_are_reported_at_once() -> None:
    """Spare users one attempt per problem."""
    found = problems(spec__priority=-1, spec__mode="x", spec__ingress__rate={"bits": "1"}, metadata__name="_")
    assert len(found) == 4


@pytest.mark.parametrize("size", [8_000, 10**12])
def test_bounds_are_inclusive(size: int) -> None:
    """Accept 8 kbit/s and 1 Tbit/s."""
    assert (
        parse_policy(document(spec__ingress__rate={"bits": size})).limits[Direction.INGRESS].rate.bits_per_s
        == size
    )


KEYS = st.sampled_from(
    [
        "spec",
        "ingress",
        "rate",
        "bits",
        "burst",
        "perPeer",
        "podSelector",
        "matchLabels",
        "metadata",
        "name",
        "x",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["100M", "5ms", "Delay", "\0"]),
    lambda children: st.lists(children) | st.dictionaries(KEYS | st.text() | st.integers(), children),
    max_leaves=20,
)


@given(VALUES)
def test_any_input_is_parsed_or_rejected(value: object) -> None:
    """Generate any document."""
    try:
        parse_policy(value)
    except SpecError as error:
        assert error.problems


@given(st.data())
def test_a_corrupted_policy_is_parsed_or_rejected(data: st.DataObject) -> None:
    """Replace one value of a valid document by any other."""
    found = document(spec__egress={"rate": {"packets": 5}, "burst": {"packets": 9}})
    place: Any = found
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(VALUES)
    try:
        parse_policy(copy.deepcopy(found))
    except SpecError as error:
        assert error.problems


@pytest.mark.parametrize("word", ["Off", "Disabled"])
def test_off_and_disabled_turn_a_policy_off(word: str) -> None:
    """Accept a value that YAML does not read as a boolean."""
    assert parse_policy(document(spec__mode=word)).mode is Mode.OFF


def test_the_features_of_a_policy_are_among_those_that_the_agent_reports() -> None:
    """Name each part that older versions reject."""
    fair = {"rate": {"bits": "1M"}, "queue": "Fair"}
    peers = {"rate": {"bits": "1M"}, "exceedAction": "Drop", "perPeer": {"rate": {"bits": "10k"}}}
    policy = parse_policy(document(spec__mode="Observe", spec__ingress=fair, spec__egress=peers))
    assert features_of(policy) == {"Observe", "Delay", "Drop", "Fair", "PerPeer"}
    assert features_of(policy) < set(FEATURES)


@pytest.mark.parametrize(
    ("fields", "is_fair"),
    [
        ({}, True),
        ({"queue": "Fair"}, True),
        ({"queue": "Fifo"}, False),
        ({"perPeer": {"rate": {"bits": "10k"}}}, False),
        ({"exceedAction": "Drop"}, False),
        ({"exceedAction": "Mark", "dscp": 8}, False),
    ],
)
def test_the_queue_of_delay_is_fair_by_default(fields: dict[str, object], *, is_fair: bool) -> None:
    """Parse no queue as Fair, except with perPeer and other actions. An older agent accepts that policy."""
    policy = parse_policy(document(spec__ingress={"rate": {"bits": "1M"}, **fields}))
    assert policy.limits[Direction.INGRESS].is_fair is is_fair
    assert ("Fair" in features_of(policy)) is ("Fair" in fields.values())
