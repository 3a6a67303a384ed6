"""The report of an agent, written and parsed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.node_report import (
    MOST_PODS,
    AgentInfo,
    NodeReport,
    Override,
    PodCounts,
    PodReport,
    PolicyReport,
    ReasonCount,
    Sync,
    WatchContact,
    entries_that_fit,
    sync_document,
    to_document,
)
from tokenbucket.core.api.parse_report import parse_report

COUNT = st.integers(0, MOST_PODS)
TEXT = st.text(max_size=20)
WORDS = st.dictionaries(st.sampled_from(["ingress", "egress"]), TEXT)
REASON = st.builds(ReasonCount, TEXT, COUNT, TEXT)
POLICY = st.builds(
    PolicyReport,
    namespace=TEXT,
    name=TEXT,
    uid=TEXT,
    generation=st.integers(0, 2**63 - 1),
    rejected=TEXT,
    pods=st.builds(PodCounts, *([COUNT] * 9)),
    overridden_by=st.lists(st.builds(Override, TEXT, TEXT, COUNT), max_size=3).map(tuple),
    effective=WORDS,
    action=WORDS,
    reasons=st.lists(REASON, max_size=3).map(tuple),
)
POD = st.builds(PodReport, *([TEXT] * 6))
SYNC = st.just(Sync()) | st.builds(
    Sync,
    TEXT.filter(bool),
    COUNT,
    COUNT,
    st.lists(st.builds(WatchContact, TEXT, TEXT), max_size=3).map(tuple),
)
REPORT = st.builds(
    NodeReport,
    agent=st.builds(AgentInfo, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    sync=SYNC,
    kernel=TEXT,
    fq=st.booleans(),
    enforcement=TEXT,
    problem=TEXT,
    clean=st.booleans(),
    limits=COUNT,
    attachments=st.dictionaries(TEXT, COUNT, max_size=3),
    foreign_programs=st.lists(TEXT, max_size=3).map(tuple),
    policies=st.lists(POLICY, max_size=3).map(tuple),
    policies_omitted=COUNT,
    pods=st.lists(POD, max_size=3).map(tuple),
    pods_omitted=COUNT,
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
GARBAGE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FULL = to_document(
    NodeReport(
        agent=AgentInfo("0.1.0", "agent-x", "tokenbucket-system/tokenbucket", ("Mark",)),
        kernel="6.12.107",
        fq=True,
        enforcement="Enforce",
        problem="none",
        clean=True,
        limits=2,
        attachments={"pod tcx/ingress": 2},
        foreign_programs=("x" * 1000,),
        policies=(
            PolicyReport(
                "shop",
                "web",
                "1",
                3,
                "spec: wrong",
                overridden_by=(Override("shop/other", "egress", 1),),
                effective={"ingress": "1Mbit/s"},
                action={"ingress": "Drop"},
                reasons=(ReasonCount("NoFq", 1, "none"),),
            ),
        ),
        pods=(PodReport("shop", "web-0", "web", "ingress", "NoFq", "none"),),
        pods_omitted=1,
    )
)


CRDS = yaml.safe_load_all((Path(__file__).parents[4] / "crds" / "tokenbucket.yaml").read_text())
STATUS_SCHEMA = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "status"
    ]
    for crd in CRDS
}
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def misfits(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Return the places that the API server would reject or drop."""
    if type(value) is not TYPES[schema["type"]]:
        return [f"{path} is not of type {schema['type']}"]
    if isinstance(value, dict):
        known = schema.get("properties") or dict.fromkeys(value, schema["additionalProperties"])
        wrong = [f"{path}.{name} is unknown" for name in value.keys() - known.keys()]
        wrong += [f"{path}.{name} is missing" for name in set(schema.get("required", ())) - value.keys()]
        inner = [(known[name], value[name], f"{path}.{name}") for name in value.keys() & known.keys()]
        return wrong + [each for args in inner for each in misfits(*args)]
    if isinstance(value, list):
        long = [f"{path} is too long"] if len(value) > schema["maxItems"] else []
        return long + [each for item in value for each in misfits(schema["items"], item, f"{path}[]")]
    if isinstance(value, str):
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 0)
        fits = fits and value in schema.get("enum", [value]) and re.search(schema.get("pattern", ""), value)
        return [] if fits else [f"{path} is not allowed: {value}"]
    return [] if value >= schema.get("minimum", 0) else [f"{path} is too small"]


def written(report: NodeReport) -> NodeReport:
    """Return the report as the API server returns it."""
    return parse_report(json.loads(json.dumps({"status": to_document(report)})))


@given(REPORT)
def test_a_parsed_report_equals_the_written_one(report: NodeReport) -> None:
    """Generate reports with any content."""
    assert written(report) == report


def test_a_report_fits_the_schema() -> None:
    """Include in the schema every field that an agent writes."""
    now = "2026-01-01T00:00:00Z"
    sync = sync_document(Sync(now, 20, 2**60, (WatchContact("pods", now),)))
    assert misfits(STATUS_SCHEMA["TokenBucketNode"], FULL | sync) == []
    assert misfits(STATUS_SCHEMA["TokenBucketNode"], to_document(NodeReport())) == []


def test_missing_fields_have_their_defaults() -> None:
    """Assume nothing that an agent does not report."""
    assert parse_report({}) == parse_report({"status": {}}) == written(NodeReport()) == NodeReport()


def test_empty_fields_are_not_written() -> None:
    """Write numbers and flags always, because columns show them."""
    counts = (
        "matched",
        "programmed",
        "degraded",
        "observed",
        "failed",
        "pending",
        "overridden",
        "off",
        "exempt",
    )
    report = NodeReport(policies=(PolicyReport("shop", "web", "1", 3),))
    assert to_document(report) == {
        "fq": False,
        "clean": False,
        "limits": 0,
        "policies": [
            {"namespace": "shop", "name": "web", "uid": "1", "generation": 3, **dict.fromkeys(counts, 0)}
        ],
        "policiesOmitted": 0,
        "podsOmitted": 0,
    }


def test_a_long_message_is_cut_with_an_ellipsis() -> None:
    """Keep a message that was cut before."""
    long = "x" * 300
    policy = PolicyReport("shop", "web", "1", 3, long, reasons=(ReasonCount("NoFq", 1, long),))
    report = NodeReport(
        policies=(policy,), pods=(PodReport("shop", "web-0", "web", "ingress", "NoFq", long),)
    )
    once = written(report)
    messages = [once.policies[0].rejected, once.policies[0].reasons[0].message, once.pods[0].message]
    assert messages == ["x" * 253 + "..."] * 3
    assert written(once) == once


def test_a_message_of_the_maximum_length_is_not_cut() -> None:
    """Count 256 characters, not bytes."""
    policy = PolicyReport("shop", "web", "1", 3, "é" * 256)
    assert written(NodeReport(policies=(policy,))).policies == (policy,)


def test_fields_of_a_newer_agent_are_ignored() -> None:
    """Ignore unknown fields at every level."""

    def newer(value: object) -> object:
        if isinstance(value, dict):
            return {key: newer(each) for key, each in value.items()} | {"new": {"field": [1]}}
        return [newer(each) for each in value] if isinstance(value, list) else value

    report = parse_report({"status": newer(FULL)})
    expected = parse_report({"status": FULL})
    assert report == expected
    assert expected.policies[0].effective == {"ingress": "1Mbit/s"}


def test_every_field_that_an_older_agent_lacks_has_its_default() -> None:
    """Remove one field at a time, and read the others."""
    whole = parse_report({"status": FULL})
    defaults = NodeReport()
    names = {
        "podsOmitted": "pods_omitted",
        "policiesOmitted": "policies_omitted",
        "foreignPrograms": "foreign_programs",
    }
    for key in FULL:
        name = names.get(key, key)
        expected = dataclasses.replace(whole, **{name: getattr(defaults, name)})
        assert parse_report({"status": {each: FULL[each] for each in FULL.keys() - {key}}}) == expected


@given(GARBAGE)
def test_any_document_can_be_read(document: object) -> None:
    """Write the result again without an error."""
    assert written(parse_report(document)) == parse_report({"status": to_document(parse_report(document))})


@given(st.data())
def test_a_document_with_wrong_values_can_be_read(data: st.DataObject) -> None:
    """Replace each value of a valid document in turn. The result has the declared types."""

    def spoil(value: object) -> object:
        if data.draw(st.integers(0, 9)) == 0:
            return data.draw(GARBAGE)
        if isinstance(value, dict):
            return {key: spoil(each) for key, each in value.items()}
        return [spoil(each) for each in value] if isinstance(value, list) else value

    report = parse_report({"status": spoil(FULL)})
    assert all(
        type(getattr(report, field.name)) is type(getattr(NodeReport(), field.name))
        for field in dataclasses.fields(report)
    )
    for policy in report.policies:
        assert policy.pods.matched >= 0
        assert all(isinstance(text, str) for text in [policy.name, *policy.effective.values()])


def test_booleans_and_numbers_are_not_interchangeable() -> None:
    """Check explicitly, because Python accepts one for the other."""
    report = parse_report({"status": {"limits": True, "fq": 1, "podsOmitted": -1, "kernel": 6}})
    assert report == NodeReport()


def test_sums_over_all_nodes_fit_the_schema_of_a_status() -> None:
    """Reject larger numbers in the API server and cut those of older reports. 30,000 nodes fit."""
    assert 30_000 * MOST_PODS < 2**31
    policies = STATUS_SCHEMA["TokenBucketNode"]["properties"]["policies"]["items"]

    def numbers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if schema.get("format") == "int32":
            yield schema
        for inner in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
            yield from numbers(inner)

    found = list(numbers(policies))
    assert len(found) > 8
    assert {(each["minimum"], each["maximum"]) for each in found} == {(0, MOST_PODS)}
    huge = {"matched": 2**31 - 1, "overriddenBy": [{"pods": 2**40}], "reasons": [{"pods": 2**40}]}
    [read] = parse_report({"status": {"policies": [huge]}}).policies
    assert {read.pods.matched, read.overridden_by[0].pods, read.reasons[0].pods} == {MOST_PODS}


def test_reports_of_two_nodes_share_equal_entries() -> None:
    """Save memory, because thousands of nodes report about the same policies."""
    given = PolicyReport("shop", "web", "u", 1, "", PodCounts(3, 3), (), {"egress": "1M"}, {"egress": "Drop"})
    document = {"status": to_document(NodeReport(policies=(given,)))}
    (one,), (other,) = (parse_report(json.loads(json.dumps(document))).policies for _ in range(2))
    assert one == given
    for name in ("namespace", "name", "uid", "pods", "effective", "action"):
        assert getattr(one, name) is getattr(other, name)


def longest_entry(number: int) -> PolicyReport:
    """Return an entry that is as long as its schema permits, except for its name."""
    override = Override("n" * 63 + "/" + "o" * 253, "ingress", MOST_PODS)
    reason = ReasonCount("R" * 64, MOST_PODS, "m" * 300)
    words = dict.fromkeys(("ingress", "egress"), "w" * 512)
    return PolicyReport(
        "n" * 63,
        f"{number:0253}",
        "u" * 64,
        2**63 - 1,
        "r" * 300,
        pods=PodCounts(*([MOST_PODS] * 9)),
        overridden_by=(override,) * 16,
        effective=words,
        action=words,
        reasons=(reason,) * 16,
    )


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        ([PolicyReport("shop", f"web-{number}", "uid", 1) for number in range(2048)], 2048),
        ([PolicyReport("shop", f"web-{number}", "uid", 1) for number in range(3000)], 2048),
        ([longest_entry(number) for number in range(20)], 20),
        ([longest_entry(number) for number in range(2048)], None),
    ],
)
def test_a_report_has_room_for_its_entries(entries: list[PolicyReport], kept: int | None) -> None:
    """Keep the first ones: etcd rejects a larger object, so that nothing on the node would be known."""
    found = entries_that_fit(entries)
    assert found == entries[: len(found)]
    assert len(found) == kept or (kept is None and 32 < len(found) < 200)
    assert len(json.dumps(to_document(NodeReport(policies=tuple(found))))) < 2**20
