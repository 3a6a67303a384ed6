"""``status`` shows the tree of policies, nodes and deviating pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import World, condition, policy
from tokenbucket.apiserver.resources import Resource
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.plugin.exit_codes import PluginExit

NAMESPACES = Resource("", "v1", "namespaces")
READY = condition("Ready", "True", "Programmed", "enforced on 1 of 1 pod on 1 node")


def world(*conditions: dict[str, Any], **fields: Any) -> World:
    found = World(**fields)
    found.policies[0]["status"] = {
        "conditions": [*conditions],
        "effective": {"ingress": "10Mbit/s, burst 625kB, Drop"},
        "pods": {"summary": "1/1"},
    }
    return found


def test_an_enforced_policy_ends_with_status_0(run: Run, api: FakeApi) -> None:
    world(READY).store(api)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.DONE
    assert "shop/web  Programmed, 1/1 pods" in result.out
    assert "node n1  1 pod: 1 programmed" in result.out


def test_deviating_pods_are_leaves_with_reason_and_message(run: Run, api: FakeApi) -> None:
    degraded = condition("Degraded", "True", "Shadowed", "not enforced as declared")
    world(condition("Ready", "False", "Failed", "not enforced"), degraded, reason=Reason.SHADOWED).store(api)
    result = run("status", "web", "-n", "shop", "-o", "json")
    assert result.code == PluginExit.DEVIATES
    node = json.loads(result.out)["policies"][0]["nodes"][0]
    assert node["failed"] == 1
    message = f"eth0: message of {Reason.SHADOWED}; act"
    assert node["pods"] == [
        {"name": "web-1", "direction": "ingress", "reason": "Shadowed", "message": message}
    ]
    assert f"pod web-1  ingress  Shadowed: {message}" in run("status", "web", "-n", "shop").out


@pytest.mark.parametrize(
    ("ready", "code"),
    [
        (condition("Ready", "Unknown", "AgentUnavailable"), PluginExit.UNKNOWN),
        (condition("Ready", "False", "Failed"), PluginExit.DEVIATES),
        (condition("Ready", "True", "Programmed", generation=0), PluginExit.UNKNOWN),
        (None, PluginExit.UNKNOWN),
    ],
)
def test_a_policy_that_is_not_ready_does_not_end_with_status_0(
    ready: dict[str, Any] | None, code: PluginExit, run: Run, api: FakeApi
) -> None:
    world(*[ready] if ready else []).store(api)
    assert run("status", "-n", "shop").code == code


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
def test_a_silent_agent_never_ends_with_status_0(output: str, run: Run, api: FakeApi) -> None:
    silent = condition("AgentReady", "False", "Silent", "has not reported for too long")
    world(READY, agent_ready=silent).store(api)
    result = run("status", "-n", "shop", "-o", output)
    assert result.code == PluginExit.UNKNOWN
    assert "has not reported for too long" in result.out


def test_without_the_right_to_read_nodes_the_policies_are_shown(run: Run, api: FakeApi) -> None:
    world(READY).store(api)
    api.fail(lambda seen: "tokenbucketnodes" in seen.path, 403)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.UNKNOWN
    assert "shop/web" in result.out
    assert "the right to list tokenbucketnodes.tokenbucket.dev (cluster-scoped) is missing" in result.out


def test_all_namespaces_are_listed_on_request(run: Run, api: FakeApi) -> None:
    found = world(READY)
    found.policies.append(policy("db") | {"metadata": {"name": "db", "namespace": "bank", "generation": 1}})
    found.store(api)
    assert "bank/db" not in run("status", "-n", "shop").out
    assert "bank/db" in run("status", "-A").out


def test_a_missing_policy_is_not_found(run: Run, api: FakeApi) -> None:
    World().store(api)
    assert run("status", "none", "-n", "shop").code == PluginExit.NOT_FOUND


def test_a_namespace_without_policies_is_not_limited(run: Run, api: FakeApi) -> None:
    World().store(api)
    api.put(NAMESPACES, "empty")
    result = run("status", "-n", "empty")
    assert (result.code, result.out) == (PluginExit.NOT_LIMITED, "no TokenBucketPolicy found\n")
    assert run("status", "-n", "mistyped").code == PluginExit.NOT_FOUND


def test_a_namespace_without_the_right_to_read_it_is_assumed_to_exist(run: Run, api: FakeApi) -> None:
    World().store(api)
    api.fail(lambda seen: seen.path.endswith("/namespaces/empty"), 403)
    assert run("status", "-n", "empty").code == PluginExit.NOT_LIMITED


@pytest.mark.parametrize(
    ("mode", "ready", "code"),
    [
        ("Observe", condition("Ready", "True", "Observed"), PluginExit.NOT_LIMITED),
        ("Off", condition("Ready", "False", "Off"), PluginExit.NOT_LIMITED),
        ("Disabled", condition("Ready", "False", "Off"), PluginExit.NOT_LIMITED),
        ("Enforce", condition("Ready", "False", "Off"), PluginExit.DEVIATES),
        ("Observe", condition("Ready", "False", "Off"), PluginExit.DEVIATES),
        ("Observe", condition("Ready", "False", "Failed"), PluginExit.DEVIATES),
    ],
)
def test_only_the_mode_of_the_policy_makes_it_not_limiting(
    mode: str, ready: dict[str, Any], code: PluginExit, run: Run, api: FakeApi
) -> None:
    world(ready, policies=[policy(mode=mode)]).store(api)
    assert run("status", "-n", "shop").code == code


@pytest.mark.parametrize("ready", [None, condition("AgentReady", "True", "Ready")])
def test_an_old_report_never_ends_with_status_0(ready: dict[str, Any] | None, run: Run, api: FakeApi) -> None:
    """Expect missing or outdated conditions without a controller."""
    world(READY, agent_ready=ready, synced_s_ago=3600).store(api)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.UNKNOWN
    assert "last report 36" in result.out


@pytest.mark.parametrize("ready", [condition("Ready", "False", "Failed"), READY])
def test_a_known_deviation_precedes_the_unknown(ready: dict[str, Any], run: Run, api: FakeApi) -> None:
    degraded = condition("Degraded", "True", "Degraded", "not as declared")
    world(ready, degraded, synced_s_ago=3600).store(api)
    assert run("status", "-n", "shop").code == PluginExit.DEVIATES


def test_a_current_report_of_a_failed_pod_precedes_the_condition_of_the_policy(
    run: Run, api: FakeApi
) -> None:
    world(READY, reason=Reason.SHADOWED).store(api)
    assert run("status", "-n", "shop").code == PluginExit.DEVIATES


def test_a_policy_that_an_agent_rejects_deviates(run: Run, api: FakeApi) -> None:
    found = world(READY)
    entry = {**found.status()["policies"][0], "rejected": "unknown field"}
    found.report_fields["policies"] = [entry]
    found.store(api)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.DEVIATES
    assert "the agent rejects the policy: unknown field" in result.out
