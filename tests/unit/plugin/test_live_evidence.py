"""The explanation uses the live figures of the agent, which are newer than its report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi, Seen
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import LIMIT, Objects, World, policy
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


def codes(world: World, answer: dict[str, Any], *denied: str) -> list[str]:
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


def test_live_figures_do_not_replace_a_missing_right() -> None:
    assert codes(World(), live(LIVE_LIMIT), "tokenbucketnodes") == [Code.RIGHT_MISSING]
    off = live(LIVE_LIMIT, enforcement="Off")
    assert codes(World(), off, "tokenbucketnodes") == [Code.ENFORCEMENT_OFF]


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
        "ingress 10.1.2.3: -25 % of its burst left",
    ):
        assert text in result.out


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
