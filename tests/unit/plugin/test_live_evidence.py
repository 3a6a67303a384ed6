"""The explanation uses the live figures of the agent, which are newer than its report."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import LIMIT, Objects, World, policy
from tokenbucket.core.api.annotations import NAME as ANNOTATIONS
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.codes import Code
from tokenbucket.plugin.explain.collect import Collector
from tokenbucket.plugin.explain.explanation import explain

COMMAND = ("explain", "pod", "web-1", "-n", "shop")
MINUTE = {"seconds": 60.0, "admittedBytes": 75_000_000, "conformPackets": 50_000, "droppedPackets": 1_234}
LIVE_LIMIT = {
    "direction": "ingress",
    "policy": "web",
    "policyGeneration": 1,
    "active": True,
    "effective": "10Mbit/s, burst 625kB, Drop",
    "action": "Drop",
    "hooks": [{"interface": "veth1", "hook": "egress", "attachment": "clsact/egress"}],
    "lastMinute": MINUTE,
    "peers": [{"peer": "10.1.2.3", "tokensOfBurst": -0.25}],
}


def live(*limits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the answer of the agent about the pod."""
    named = {"uid": "web-1-uid", "namespace": "shop", "pod": "web-1", "policies": {"ingress": "web"}}
    return {**named, "limits": [*limits], "reasons": [], "foreignPrograms": [], **fields}


def codes(world: World, answer: dict[str, Any] | None, *denied: str) -> list[str]:
    found = Collector(Objects(world, frozenset(denied))).of("shop", "web-1")
    return [each.code for each in explain(replace(found, live=answer)).causes]


def reason(name: str) -> dict[str, str]:
    return {"direction": "ingress", "reason": name, "effect": "failed", "message": "veth1: odd; act"}


def test_a_reason_that_ended_after_the_report_is_no_cause() -> None:
    assert codes(World(reason=Reason.SHADOWED), live(LIVE_LIMIT)) == [Code.ENFORCED]


def test_a_reason_that_began_after_the_report_is_the_cause() -> None:
    answer = live({**LIVE_LIMIT, "active": False}, reasons=[reason("Shadowed")])
    assert codes(World(), answer) == [Reason.SHADOWED]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ([], Code.PENDING),
        ([{**LIVE_LIMIT, "active": False}], Code.PENDING),
        ([{**LIVE_LIMIT, "policyGeneration": 0}], Code.UPDATING),
        ([{**LIVE_LIMIT, "policy": "another"}], Code.UPDATING),
    ],
)
def test_a_limit_that_is_not_attached_is_not_enforced(limits: list[dict[str, Any]], code: Code) -> None:
    assert codes(World(), live(*limits)) == [code]


def test_a_report_that_leaves_out_pods_is_completed() -> None:
    world = World(reason=Reason.SHADOWED, report_fields={"pods": [], "podsOmitted": 1})
    assert codes(world, live(LIVE_LIMIT)) == [Code.ENFORCED]


def test_a_new_policy_needs_no_report() -> None:
    assert codes(World(seen_policies=[]), live(LIVE_LIMIT)) == [Code.ENFORCED]


@pytest.mark.parametrize(
    ("limit", "mode", "code"),
    [
        ({}, "Enforce", Code.ENFORCED),
        ({"active": False}, "Enforce", Code.PENDING),
        ({"policyGeneration": 0}, "Enforce", Code.UPDATING),
        (None, "Enforce", Code.PENDING),
        ({}, "Off", Code.ENFORCEMENT_OFF),
        ({}, "Observe", Code.ENFORCEMENT_OBSERVE),
        ({}, None, Code.RIGHT_MISSING),
    ],
)
def test_the_live_state_suffices_without_the_right_to_read_reports(
    limit: dict[str, Any] | None, mode: str | None, code: Code
) -> None:
    answer = live(*[] if limit is None else [{**LIVE_LIMIT, **limit}], enforcement=mode)
    assert codes(World(), answer, "tokenbucketnodes", "nodes") == [code]


ANNOTATED_LIMIT = {**LIVE_LIMIT, "policy": ANNOTATIONS, "policyGeneration": 0}
INVALID = reason(Reason.INVALID_ANNOTATION)


@pytest.mark.parametrize(
    ("annotation", "answer", "code"),
    [
        ("10M", None, Code.RIGHT_MISSING),
        ("fast", None, Code.RIGHT_MISSING),
        ("10M", live(ANNOTATED_LIMIT, policies={"ingress": ANNOTATIONS}), Code.ENFORCED),
        ("10M", live(policies={"ingress": ANNOTATIONS}), Code.PENDING),
        ("10M", live(policies={}), Code.ANNOTATIONS_NOT_READ),
        ("fast", live(policies={}, reasons=[INVALID]), Reason.INVALID_ANNOTATION),
        ("fast", live(policies={}), Code.ANNOTATIONS_NOT_READ),
    ],
)
def test_annotations_without_a_report_have_the_state_of_the_live_answer(
    annotation: str, answer: dict[str, Any] | None, code: str
) -> None:
    world = World(policies=[], reads_annotations=True)
    world.pod["metadata"]["annotations"] = {"kubernetes.io/ingress-bandwidth": annotation}
    found = {**answer, "enforcement": "Enforce"} if answer else None
    assert codes(world, found, "tokenbucketnodes", "nodes") == [code]


READABLE = ("tokenbucketnodes", "nodes", "configmaps")
SUBSETS = list(chain(*(combinations(READABLE, count) for count in range(len(READABLE) + 1))))


@pytest.mark.parametrize("denied", SUBSETS, ids=",".join)
@pytest.mark.parametrize("annotated", [False, True])
@pytest.mark.parametrize("answers", [False, True])
def test_no_missing_right_changes_the_state_to_a_wrong_one(
    denied: tuple[str, ...], *, annotated: bool, answers: bool
) -> None:
    """Show an enforced limit as enforced or unknown, and one that is not enforced never as enforced."""
    limit = ANNOTATED_LIMIT if annotated else LIVE_LIMIT
    world = World(policies=[], reads_annotations=True) if annotated else World()
    world.pod["metadata"]["annotations"] = {"kubernetes.io/ingress-bandwidth": "10M"} if annotated else {}
    named = {"ingress": limit["policy"]}
    answer = live(limit, policies=named, enforcement="Enforce") if answers else None
    is_known = answers or "tokenbucketnodes" not in denied
    assert codes(world, answer, *denied) == [Code.ENFORCED if is_known else Code.RIGHT_MISSING]
    world.enforcement, world.override = Mode.OFF, {"enforcement": "Off"}
    answer = live(limit, policies=named, enforcement="Off") if answers else None
    assert codes(world, answer, *denied) == [Code.ENFORCEMENT_OFF if is_known else Code.RIGHT_MISSING]


def relay(seen: Seen) -> bool:
    return seen.path.endswith("/services/tokenbucket-live:live/proxy/v1/nodes/n1/pods")


def test_the_figures_are_read_through_the_relay_and_shown(run: Run, api: FakeApi) -> None:
    World(policies=[policy(ingress=LIMIT)]).store(api)
    program = "cil_to_container (tcx) at the egress of 1 interface"
    answer = live(LIVE_LIMIT, foreignPrograms=[program])
    api.answer(relay, {"version": 1, "node": "n1", "reconciled": True, "pods": [answer]})
    result = run(*COMMAND)
    assert result.code == PluginExit.DONE
    for text in (
        "ingress: clsact/egress at veth1",
        program,
        "ingress: 10Mbit/s admitted; packets: 50,000 conformed, 1,234 dropped",
        "ingress 10.1.2.3: owes 25 % of its burst",
    ):
        assert text in result.out


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "; of the bytes, the limit would drop 25 %"),
        ({"exceedAction": "Mark"}, "; of the bytes, the limit would mark 25 %"),
        ({"exceedAction": "Delay"}, "; of the bytes, the limit would delay 50 %, drop 25 %"),
        ({"mode": "Enforce"}, ""),
    ],
)
def test_a_limit_that_observes_shows_its_effect(
    fields: dict[str, Any], text: str, run: Run, api: FakeApi
) -> None:
    World(policies=[policy(mode="Observe")]).store(api)
    minute = {
        "seconds": 60.0,
        "admittedBytes": 100,
        "delayedBytes": 50,
        "exceedBytes": 25,
        "conformPackets": 1,
    }
    observed = {**LIVE_LIMIT, "mode": "Observe", "exceedAction": "Drop", "lastMinute": minute, **fields}
    api.answer(relay, {"version": 1, "node": "n1", "reconciled": True, "pods": [live(observed)]})
    [line] = [each for each in run(*COMMAND).out.splitlines() if "admitted; packets" in each]
    assert line.endswith(f"1 conformed{text}")


@pytest.mark.parametrize(
    ("status", "text"),
    [(403, "the right to create services/proxy"), (404, "not shown"), (503, "not shown")],
)
def test_without_the_figures_the_output_has_the_cause(status: int, text: str, run: Run, api: FakeApi) -> None:
    World().store(api)
    api.fail(relay, status, "no agent")
    result = run(*COMMAND)
    assert result.code == PluginExit.DONE
    assert text in result.out


def test_an_agent_that_does_not_know_the_pod_is_named(run: Run, api: FakeApi) -> None:
    World().store(api)
    api.answer(relay, {"version": 1, "node": "n1", "reconciled": True, "pods": []})
    assert "the agent does not know the pod yet" in run(*COMMAND).out
