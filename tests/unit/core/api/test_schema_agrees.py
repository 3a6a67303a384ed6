"""The schema that the API server enforces says the same as the agent's own check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.cases_invalid_policies import INVALID, VALID, Case, policy
from tokenbucket.core.api import parse_limit
from tokenbucket.core.api.parse import API_VERSION, POLICY, parse_policy
from tokenbucket.core.api.policy import (
    DISABLED,
    Direction,
    ExceedAction,
    Limit,
    Mode,
    PerPeer,
    Policy,
    Rate,
)
from tokenbucket.core.api.selector import Operator, Selector
from tokenbucket.errors import SpecError
from tokenbucket.units import MAX_TEXT, quantity

CRDS = list(yaml.safe_load_all((Path(__file__).parents[4] / "crds" / "tokenbucket.yaml").read_text()))
BY_KIND = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0] for crd in CRDS}
LISTS_FIELDS = {"properties", "additionalProperties"}


class Field(NamedTuple):
    """One place of a schema; in its path ``[]`` is every item of a list, ``{}`` every value of a map."""

    path: str
    schema: dict[str, Any]


def walk(schema: dict[str, Any], path: str) -> Iterator[Field]:
    """Everything in a schema, itself included."""
    yield Field(path, schema)
    for name, each in schema.get("properties", {}).items():
        yield from walk(each, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def places() -> list[Field]:
    """Every place of both schemas, except what Kubernetes itself bounds and describes."""
    whole = [
        place
        for kind, version in BY_KIND.items()
        for place in walk(version["schema"]["openAPIV3Schema"], kind)
    ]
    return [place for place in whole if not place.path.endswith((".apiVersion", ".kind", ".metadata"))]


def spec(path: str) -> dict[str, Any]:
    """The schema at a path in ``spec``."""
    found = {place.path: place.schema for place in places()}
    return found[f"{POLICY}.spec.{path}"]


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_the_agent_refuses_what_the_schema_refuses(case: Case) -> None:
    """And names the same field."""
    with pytest.raises(SpecError) as caught:
        parse_policy(case.document)
    assert any(problem.field.startswith(case.field) for problem in caught.value.problems), caught.value


@pytest.mark.parametrize("document", VALID, ids=lambda document: document["metadata"]["name"])
def test_the_agent_reads_what_the_schema_accepts(document: dict[str, Any]) -> None:
    """Every one of the examples."""
    assert parse_policy(document).name == document["metadata"]["name"]


def test_the_table_is_large_and_names_no_case_twice() -> None:
    """A name is that of a test, and of an object."""
    names = [case.name for case in INVALID] + [document["metadata"]["name"] for document in VALID]
    assert len(names) == len(set(names))
    assert len(INVALID) >= 40
    assert len(VALID) >= 15


def test_every_field_says_what_it_means() -> None:
    """``kubectl explain`` teaches the API: no field without a description, and none that breaks off."""
    fields = [place for place in places() if not place.path.endswith(("[]", "{}"))]
    assert len(fields) > 80
    assert [place.path for place in fields if not place.schema.get("description", "").endswith(".")] == []


def test_every_field_is_bounded() -> None:
    """So that no object grows without bound, and the cost of every rule is known beforehand."""
    assert [place.path for place in places() if not bounds_of(place) <= set(place.schema)] == []


def bounds_of(place: Field) -> set[str]:
    """What must be there to bound a place. A count in a status has no upper bound."""
    schema = place.schema
    kind = "string" if schema.get("x-kubernetes-int-or-string") else schema["type"]
    if kind == "object":
        return {"maxProperties"} if "additionalProperties" in schema else set()
    if kind == "integer":
        return {"minimum", "maximum"} if place.path.startswith(f"{POLICY}.spec.") else {"minimum"}
    return {"string": {"maxLength"}, "array": {"maxItems"}, "boolean": set()}[kind]


def test_every_object_lists_its_fields() -> None:
    """One that is not listed would be dropped in silence."""
    objects = [place for place in places() if place.schema.get("type") == "object"]
    assert [place.path for place in objects if not place.schema.keys() & LISTS_FIELDS] == []


def test_every_list_says_how_it_merges() -> None:
    """With server-side apply two writers of one list would otherwise overwrite each other unawares."""
    lists = [place for place in places() if place.schema.get("type") == "array"]
    keys = {
        place.path: place.schema.get("x-kubernetes-list-map-keys")
        for place in lists
        if place.schema["x-kubernetes-list-type"] != "atomic"
    }
    assert keys == {
        f"{POLICY}.status.conditions": ["type"],
        "TokenBucketNode.status.conditions": ["type"],
    }


def test_every_rule_has_a_message_on_one_line() -> None:
    """The API server shows it as it is; where a message is computed, it is what is left when that fails."""
    rules = [rule for place in places() for rule in place.schema.get("x-kubernetes-validations", ())]
    assert rules
    assert [rule for rule in rules if "\n" in rule["message"] + rule["rule"]] == []


@pytest.mark.parametrize(
    ("path", "enum"),
    [
        ("mode", Mode),
        ("ingress.exceedAction", ExceedAction),
        ("podSelector.matchExpressions[].operator", Operator),
    ],
)
def test_words_are_those_of_the_code(path: str, enum: type[Mode | ExceedAction | Operator]) -> None:
    """In the same order."""
    others = [DISABLED] if enum is Mode else []
    assert spec(path)["enum"] == [each.value for each in enum] + others


def test_defaults_are_those_of_the_code() -> None:
    """A manifests folder, which has no API server, gives the same limits. Computed ones are not stored."""
    found = {place.path: place.schema["default"] for place in places() if "default" in place.schema}
    defaults = {path: value for path, value in found.items() if path.startswith(f"{POLICY}.spec.")}
    limit, peers = Limit(Rate()), PerPeer(Rate())
    made = Policy("shop", "web", Selector(), {})
    expected: dict[str, object] = {"priority": made.priority, "mode": made.mode}
    for direction in Direction:
        expected |= {
            f"{direction}.exceedAction": limit.exceed_action,
            f"{direction}.perPeer.ipv4PrefixLength": peers.ipv4_prefix_length,
            f"{direction}.perPeer.ipv6PrefixLength": peers.ipv6_prefix_length,
        }
    assert defaults == {f"{POLICY}.spec.{path}": value for path, value in expected.items()}


def test_a_policy_without_defaults_is_read_as_one_with_them() -> None:
    """What the API server adds changes nothing."""
    bare = {"rate": {"bits": "1M"}, "perPeer": {"rate": {"bits": "1M"}}}
    full = {
        **bare,
        "exceedAction": "Delay",
        "perPeer": {**bare["perPeer"], "ipv4PrefixLength": 32, "ipv6PrefixLength": 64},
    }
    assert parse_policy(policy("web", ingress=bare)) == parse_policy(
        policy("web", ingress=full, priority=0, mode="Enforce")
    )


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("rate.bits", parse_limit.RATE_BITS),
        ("rate.packets", parse_limit.RATE_PACKETS),
        ("burst.bytes", parse_limit.BURST_BYTES),
        ("burst.packets", parse_limit.BURST_PACKETS),
    ],
)
def test_bounds_of_quantities_are_those_of_the_code(path: str, bounds: tuple[int, int]) -> None:
    """In the rule, and in the words of its message."""
    schema = spec(f"ingress.{path}")
    assert schema["maxLength"] == MAX_TEXT
    rule = schema["x-kubernetes-validations"][-1]
    for bound, comparison in zip(bounds, (">=", "<="), strict=True):
        text = rule["rule"].split(f")) {comparison} 0")[0].rpartition("quantity('")[2].rstrip("')")
        assert quantity(text) == bound
        assert text in rule["message"]


def test_bounds_of_numbers_are_those_of_the_code() -> None:
    """One beyond each is refused by the agent, and each itself is not."""
    peers = {"rate": {"bits": "1M"}}
    for path, make in (
        ("priority", lambda value: policy("web", priority=value)),
        (
            "ingress.dscp",
            lambda value: policy(
                "web", ingress={"rate": {"bits": "1M"}, "exceedAction": "Mark", "dscp": value}
            ),
        ),
        (
            "ingress.perPeer.ipv4PrefixLength",
            lambda value: policy("web", ingress={"perPeer": {**peers, "ipv4PrefixLength": value}}),
        ),
        (
            "ingress.perPeer.ipv6PrefixLength",
            lambda value: policy("web", ingress={"perPeer": {**peers, "ipv6PrefixLength": value}}),
        ),
    ):
        low, high = spec(path)["minimum"], spec(path)["maximum"]
        for value in (low, high):
            parse_policy(make(value))
        for value in (low - 1, high + 1):
            with pytest.raises(SpecError):
                parse_policy(make(value))


def test_both_directions_and_every_bucket_have_one_schema() -> None:
    """What is written once cannot drift apart."""
    assert spec("ingress")["properties"] == spec("egress")["properties"]
    assert spec("ingress")["x-kubernetes-validations"] == spec("egress")["x-kubernetes-validations"]
    assert spec("ingress.rate")["properties"] == spec("ingress.perPeer.rate")["properties"]
    assert spec("ingress.burst")["properties"] == spec("ingress.perPeer.burst")["properties"]


def test_the_schema_has_the_fields_that_the_agent_knows() -> None:
    """An unknown one is refused by the agent with those that are known."""
    unknown = {"x": 1}
    selector = {"matchExpressions": [unknown], **unknown}
    limit = {"rate": unknown, "burst": unknown, "perPeer": unknown, **unknown}
    with pytest.raises(SpecError) as caught:
        parse_policy(policy("web", podSelector=selector, ingress=limit, **unknown))
    known = {
        problem.field.removesuffix(".x"): problem.message.partition("known are ")[2].split(", ")
        for problem in caught.value.problems
        if problem.field.endswith(".x")
    }
    assert len(known) == 7
    for path, names in known.items():
        inner = path.removeprefix("spec").lstrip(".").replace("[0]", "[]")
        schema = spec(inner) if inner else BY_KIND[POLICY]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert sorted(schema["properties"]) == names


def test_the_status_of_a_policy_is_a_subresource_and_a_nodes_report_is_not() -> None:
    """A policy has two writers, its owner and the controller; a report has one."""
    assert BY_KIND[POLICY]["subresources"] == {"status": {}}
    assert "subresources" not in BY_KIND["TokenBucketNode"]


def test_names_are_those_of_the_code() -> None:
    """Group, version, kind, and the short names that the documentation uses."""
    named = {crd["spec"]["names"]["kind"]: crd["spec"]["names"]["shortNames"] for crd in CRDS}
    assert named == {POLICY: ["tbp"], "TokenBucketNode": ["tbn"]}
    for crd in CRDS:
        assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
        assert f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}" == API_VERSION
