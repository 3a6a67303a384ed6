"""Limits of pods that annotations declare, beside policies: rank, limits and reports."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import IPv4Address

import pytest

from tests.unit.core.api.test_node_report import STATUS_SCHEMA, misfits
from tokenbucket.core.api.annotations import NAME, read_annotations
from tokenbucket.core.api.node_report import NodeReport, to_document
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Limit, Mode, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.attachment import End, Interface
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.pod_limits import PodInterfaces
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import (
    DesiredInput,
    NodeState,
    Outcome,
    annotation_report,
    missing_limits,
    pods_not_programmed,
    policy_reports,
)

IN, OUT = Direction
POLICY = Policy("shop", "all", Selector(), {IN: Limit(Rate(10**9))})


def pod(number: int = 0, /, **bandwidth: str) -> Pod:
    """Return a pod with these annotations of Kubernetes."""
    annotations = {f"kubernetes.io/{direction}-bandwidth": value for direction, value in bandwidth.items()}
    return Pod(
        PodId("shop", f"web-{number}"),
        {},
        frozenset({IPv4Address(f"10.0.0.{number + 2}")}),
        annotated=read_annotations("shop", annotations),
    )


def state(*pods: Pod, policies: tuple[Policy, ...] = (), enforcement: Mode = Mode.ENFORCE) -> NodeState:
    """Return the state after a run in which every pod has a veth."""
    interfaces = {
        each.id: PodInterfaces({End.HOST: frozenset({Interface(7 + number)})})
        for number, each in enumerate(pods)
    }
    target = desired(
        policies, pods, lambda search: interfaces[search.pod], Capabilities(), NodeSettings(enforcement)
    )
    inputs = DesiredInput(policies, pods, enforcement)
    return NodeState(inputs, Outcome(deviations=tuple(target.deviations), active=target.active))


def counts(found: NodeState) -> dict[str, int]:
    """Return the counts of annotated pods that are not 0."""
    report = annotation_report(found)
    return {name: number for name, number in asdict(report.pods).items() if number} if report else {}


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_policy_has_precedence_over_annotations_in_its_directions(mode: Mode) -> None:
    """Keep the annotation of the other direction. Ranks of policies do not matter."""
    lowest = Policy("shop", "z", Selector(), {IN: Limit(Rate(10**9))}, mode=mode)
    winners = Winners([lowest]).of(pod(ingress="1M", egress="1M"))
    assert (str(winners[IN]), str(winners[OUT])) == ("shop/z", f"shop/{NAME}")


def test_a_policy_that_does_not_apply_leaves_the_annotations() -> None:
    """Try a policy in mode Off, and one of another namespace."""
    others = [
        Policy("shop", "off", Selector(), {IN: Limit(Rate(10**9))}, mode=Mode.OFF),
        Policy("bank", "all", Selector(), {IN: Limit(Rate(10**9))}),
    ]
    assert str(Winners(others).of(pod(ingress="1M"))[IN]) == f"shop/{NAME}"


def test_an_annotated_pod_has_the_limit_and_guard_of_an_equal_policy() -> None:
    """Differ only in the name of the owner, so that the executor needs no special case."""
    declared = pod(ingress="1M", egress="1M")
    equal = Policy("shop", "equal", Selector(), dict.fromkeys(Direction, Limit(Rate(10**6))))
    located = PodInterfaces({End.HOST: frozenset({Interface(7)}), End.POD: frozenset({Interface(2, 9)})})
    annotated = desired([], [declared], lambda _: located, Capabilities())
    by_policy = desired([equal], [declared], lambda _: located, Capabilities())
    assert annotated.active == by_policy.active
    assert {key: each.points for key, each in annotated.wanted.items()} == {
        key: each.points for key, each in by_policy.wanted.items()
    }
    assert {each.slot.owner.policy for each in annotated.wanted.values()} == {NAME}


def test_an_invalid_annotation_is_reported_only_without_a_policy() -> None:
    """Ignore the annotation of a direction that a policy limits."""
    declared = pod(ingress="1Mbit", egress="1M")
    found = state(declared)
    [report] = pods_not_programmed(found)
    assert (report.policy, report.direction, report.reason) == (NAME, "ingress", "InvalidAnnotation")
    assert report.message.startswith("kubernetes.io/ingress-bandwidth: '1Mbit' ")
    assert found.outcome.active.keys() == {SlotKey(declared.id, OUT)}
    assert list(pods_not_programmed(state(declared, policies=(POLICY,)))) == []


def test_a_pod_with_an_invalid_annotation_becomes_ready() -> None:
    """Never let a limiter become an outage."""
    declared = pod(ingress="1Mbit")
    assert missing_limits(state(declared), Winners(()), declared) == ""


def test_annotated_pods_are_counted_by_state() -> None:
    """Count each pod once, also if only an invalid annotation is left."""
    pods = (pod(0, ingress="1M"), pod(1, ingress="x"), pod(2, ingress="1M", egress="x"), pod(3))
    assert counts(state(*pods)) == {"matched": 3, "programmed": 1, "failed": 2}
    assert counts(state(*pods, policies=(POLICY,))) == {"matched": 3, "overridden": 2, "failed": 1}
    assert counts(state(*pods, enforcement=Mode.OFF)) == {"matched": 3, "off": 3}
    assert counts(state(*pods, enforcement=Mode.OBSERVE)) == {
        "matched": 3,
        "programmed": 1,
        "observed": 1,
        "failed": 2,
    }


def test_the_report_of_annotated_pods_survives_a_round_trip_through_the_schema() -> None:
    """Name no policy."""
    found = state(pod(0, ingress="1M"), pod(1, ingress="x"))
    report = annotation_report(found)
    document = to_document(NodeReport(annotations=report, pods=tuple(pods_not_programmed(found))))
    assert misfits(STATUS_SCHEMA["TokenBucketNode"], document) == []
    assert document["annotations"].keys() & {"namespace", "name", "generation"} == set()
    [reason] = document["annotations"]["reasons"]
    assert (reason["reason"], reason["pods"]) == (Reason.INVALID_ANNOTATION, 1)
    read = parse_report({"status": document}).annotations
    assert read
    assert report
    assert (read.pods, read.reasons) == (report.pods, report.reasons)


def test_a_report_without_annotated_pods_has_no_such_field() -> None:
    """Keep reports of agents that do not read annotations unchanged."""
    found = state(pod(), policies=(POLICY,))
    report = NodeReport(policies=policy_reports(found), annotations=annotation_report(found))
    assert "annotations" not in to_document(report)


@pytest.mark.parametrize("enforcement", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_pod_that_another_component_limits_too_is_degraded(enforcement: Mode) -> None:
    """Keep the limit running. In Observe mode, nothing is enforced and nothing is reported."""
    located = PodInterfaces({End.HOST: frozenset({Interface(7)})}, also_limited={IN: "veth0: a tbf qdisc"})
    declared = pod(ingress="1M")
    target = desired([], [declared], lambda _: located, Capabilities(), NodeSettings(enforcement))
    found = [(each.key.direction, each.reason) for each in target.deviations]
    assert found == ([(IN, Reason.ALSO_LIMITED)] if enforcement is Mode.ENFORCE else [])
    assert SlotKey(declared.id, IN) in target.active
