"""Agreement of the schema of the API server with the parser of the agent."""

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
    """One place of a schema. In its path, ``[]`` is every item of a list, and ``{}`` every value of a map."""

    path: str
    schema: dict[str, Any]


def walk(schema: dict[str, Any], path: str) -> Iterator[Field]:
    """Yield everything in a schema, including itself."""
    yield Field(path, schema)
    for name, each in schema.get("properties", {}).items():
        yield from walk(each, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def places() -> list[Field]:
    """Return every place of both schemas, except those that Kubernetes bounds and describes."""
    whole = [
        place
        for kind, version in BY_KIND.items()
        for place in walk(version["schema"]["openAPIV3Schema"], kind)
    ]
    return [place for place in whole if not place.path.endswith((".apiVersion", ".kind", ".metadata"))]


def spec(path: str) -> dict[str, Any]:
    """Return the schema at a path in ``spec``."""
    found = {place.path: place.schema for place in places()}
    return found[f"{POLICY}.spec.{path}"]


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_the_agent_rejects_each_policy_that_the_schema_rejects(case: Case) -> None:
    """Name the same field."""
    with pytest.raises(SpecError) as caught:
        parse_policy(case.document)
    assert any(problem.field.startswith(case.field) for problem in caught.value.problems), caught.value


@pytest.mark.parametrize("document", VALID, ids=lambda document: document["metadata"]["name"])
def test_the_agent_accepts_each_example_that_the_schema_accepts(document: dict[str, Any]) -> None:
    assert parse_policy(document).name == document["metadata"]["name"]


def test_the_table_of_cases_has_unique_names() -> None:
    """Use each name for a test and for an object."""
    names = [case.name for case in INVALID] + [document["metadata"]["name"] for document in VALID]
    assert len(names) == len(set(names))
    assert len(INVALID) >= 40
    assert len(VALID) >= 15


def test_every_field_has_a_complete_description() -> None:
    """Show the API to users of ``kubectl explain``."""
    fields = [place for place in places() if not place.path.endswith(("[]", "{}"))]
    assert len(fields) > 80
    assert [place.path for place in fields if not place.schema.get("description", "").endswith(".")] == []


def test_every_field_is_bounded() -> None:
    """Bound the size of every object and the cost of every rule."""
    assert [place.path for place in places() if not bounds_of(place) <= set(place.schema)] == []


def bounds_of(place: Field) -> set[str]:
    """Return the required bounds of a place. A count in a status has no upper bound."""
    schema = place.schema
    kind = "string" if schema.get("x-kubernetes-int-or-string") else schema["type"]
    if kind == "object":
        return {"maxProperties"} if "additionalProperties" in schema else set()
    if kind == "integer":
        return {"minimum", "maximum"} if place.path.startswith(f"{POLICY}.spec.") else {"minimum"}
    return {"string": {"maxLength"}, "array": {"maxItems"}, "boolean": set()}[kind]


def test_every_object_lists_its_fields() -> None:
    """Keep the API server from dropping fields silently."""
    objects = [place for place in places() if place.schema.get("type") == "object"]
    assert [place.path for place in objects if not place.schema.keys() & LISTS_FIELDS] == []


def test_every_list_declares_its_merge_strategy() -> None:
    """Keep two writers with server-side apply from overwriting each other."""
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
    """Provide a message for the case that a computed message fails."""
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
def test_enumerations_equal_those_of_the_code(path: str, enum: type[Mode | ExceedAction | Operator]) -> None:
    """Compare the order too."""
    others = [DISABLED] if enum is Mode else []
    assert spec(path)["enum"] == [each.value for each in enum] + others


def test_defaults_equal_those_of_the_code() -> None:
    """Give the same limits without an API server. Computed defaults are not stored."""
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


def test_stored_defaults_do_not_change_a_policy() -> None:
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
def test_bounds_of_quantities_equal_those_of_the_code(path: str, bounds: tuple[int, int]) -> None:
    """Compare the rule and its message."""
    schema = spec(f"ingress.{path}")
    assert schema["maxLength"] == MAX_TEXT
    rule = schema["x-kubernetes-validations"][-1]
    for bound, comparison in zip(bounds, (">=", "<="), strict=True):
        text = rule["rule"].split(f")) {comparison} 0")[0].rpartition("quantity('")[2].rstrip("')")
        assert quantity(text) == bound
        assert text in rule["message"]


def test_bounds_of_numbers_equal_those_of_the_code() -> None:
    """Reject the number beyond each bound, and accept the bound."""
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


def test_both_directions_and_all_buckets_have_equal_schemas() -> None:
    assert spec("ingress")["properties"] == spec("egress")["properties"]
    assert spec("ingress")["x-kubernetes-validations"] == spec("egress")["x-kubernetes-validations"]
    assert spec("ingress.rate")["properties"] == spec("ingress.perPeer.rate")["properties"]
    assert spec("ingress.burst")["properties"] == spec("ingress.perPeer.burst")["properties"]


def test_the_schema_and_the_agent_know_the_same_fields() -> None:
    """List the known fields when the agent rejects an unknown one."""
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


def test_only_policies_have_the_status_subresource() -> None:
    """Separate owner and controller of a policy. A report has one writer."""
    assert BY_KIND[POLICY]["subresources"] == {"status": {}}
    assert "subresources" not in BY_KIND["TokenBucketNode"]


def test_names_of_the_api_equal_those_of_the_code() -> None:
    """Compare group, version, kind and the documented short names."""
    named = {crd["spec"]["names"]["kind"]: crd["spec"]["names"]["shortNames"] for crd in CRDS}
    assert named == {POLICY: ["tbp"], "TokenBucketNode": ["tbn"]}
    for crd in CRDS:
        assert crd["metadata"]["name"] == f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
        assert f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}" == API_VERSION
