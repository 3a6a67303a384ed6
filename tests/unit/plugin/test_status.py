"""``status`` shows the tree of policies, nodes and deviating pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.test_live_evidence import LIVE_LIMIT, live, reason, relay
from tests.unit.plugin.world import World, condition, policy
from tokenbucket.apiserver.resources import PODS, Resource
from tokenbucket.core.api.policy import Mode
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


def test_a_degraded_pod_is_one_of_the_programmed(run: Run, api: FakeApi) -> None:
    world(READY, reason=Reason.NO_FQ).store(api)
    assert "node n1  1 pod: 1 programmed (1 degraded)" in run("status", "-n", "shop").out


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
    result = run("status", "-n", "shop")
    assert result.code == code
    assert all(line.strip("│├└─ ") for line in result.out.splitlines())


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
def test_a_silent_agent_never_ends_with_status_0(output: str, run: Run, api: FakeApi) -> None:
    silent = condition("AgentReady", "False", "Silent", "has not reported for too long")
    world(READY, agent_ready=silent).store(api)
    result = run("status", "-n", "shop", "-o", output)
    assert result.code == PluginExit.UNKNOWN
    assert "has not reported for too long" in result.out


def without_reports(api: FakeApi, found: World, answer: dict[str, Any] | None) -> None:
    """Let the user read no report, and relay this answer of the agent about the pod, if there is one."""
    found.store(api)
    for _ in range(2):  # the second list looks for the name of the release
        api.fail(lambda seen: "tokenbucketnodes" in seen.path, 403)
    if answer is None:
        api.fail(relay, 403, 'User "u" cannot create resource "services/proxy"')
    else:
        document = {"version": 1, "node": "n1", "reconciled": True, "enforcement": "Enforce", **answer}
        api.answer(relay, document)


ACTIVE = {"pods": [live(LIVE_LIMIT)]}


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (ACTIVE, PluginExit.DONE, "node n1  1 pod: 1 enforced as declared"),
        ({"pods": [live()]}, PluginExit.DEVIATES, "ingress  Pending: the agent has no limit for the pod yet"),
        (
            {"pods": [live(LIVE_LIMIT, reasons=[reason("Shadowed")])]},
            PluginExit.DEVIATES,
            "pod shop/web-1  ingress  Shadowed: veth1: odd; act",
        ),
        ({**ACTIVE, "enforcement": "Off"}, PluginExit.DEVIATES, "EnforcementOff"),
        ({**ACTIVE, "enforcement": None}, PluginExit.UNKNOWN, "1 unknown"),
        ({"pods": []}, PluginExit.UNKNOWN, "node n1  1 pod: 1 unknown"),
        ({**ACTIVE, "reconciled": False}, PluginExit.UNKNOWN, "1 unknown"),
        (None, PluginExit.UNKNOWN, "the right to create services/proxy tokenbucket-live:live"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("web",)])
def test_without_the_right_to_read_reports_the_live_state_counts(
    arguments: tuple[str, ...],
    answer: dict[str, Any] | None,
    code: PluginExit,
    text: str,
    run: Run,
    api: FakeApi,
) -> None:
    """Name the missing right in each case."""
    without_reports(api, world(READY), answer)
    result = run("status", *arguments, "-n", "shop")
    assert (result.code, text in result.out) == (code, True), result.out
    assert "the right to list tokenbucketnodes.tokenbucket.dev (cluster-scoped) is missing" in result.out


def test_without_reports_the_status_of_the_policy_names_pods(run: Run, api: FakeApi) -> None:
    found = world(READY)
    problem = {"pod": "web-1", "node": "n1", "direction": "ingress", "reason": "Shadowed", "message": "a; b"}
    found.policies[0]["status"]["problems"] = [problem]
    without_reports(api, found, None)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.DEVIATES
    assert "pod shop/web-1  ingress  Shadowed: a; b" in result.out


def test_without_reports_and_pods_the_state_is_unknown(run: Run, api: FakeApi) -> None:
    without_reports(api, world(READY), ACTIVE)
    api.fail(lambda seen: seen.path.endswith("/namespaces/shop/pods"), 403)
    result = run("status", "-n", "shop")
    assert result.code == PluginExit.UNKNOWN
    assert "the right to list pods in namespace shop is missing" in result.out


def annotated(annotations: dict[str, str], **fields: Any) -> World:
    found = World(**{"policies": [], "reads_annotations": True, **fields})
    found.pod["metadata"]["annotations"] = annotations
    return found


BOTH = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "10M"}
WRONG = {"kubernetes.io/ingress-bandwidth": "fast"}


@pytest.mark.parametrize(
    ("found", "code", "text"),
    [
        (annotated(BOTH), PluginExit.DONE, "node n1  1 pod: 1 enforced as declared"),
        (annotated(WRONG), PluginExit.DEVIATES, "pod shop/web-1  ingress  InvalidAnnotation: kubernetes.io/"),
        (annotated(BOTH, reason=Reason.SHADOWED), PluginExit.DEVIATES, "Shadowed: eth0: message of"),
        (annotated(BOTH, synced_s_ago=3600), PluginExit.UNKNOWN, "node n1  1 pod: 1 unknown"),
        (annotated(BOTH, enforcement=Mode.OFF), PluginExit.DEVIATES, "EnforcementOff"),
        (annotated(BOTH, reads_annotations=False), PluginExit.NOT_LIMITED, ""),
        (annotated({}), PluginExit.NOT_LIMITED, ""),
        (annotated(BOTH, policies=world(READY).policies), PluginExit.DONE, "Pods with annotations  1/1"),
        (annotated(WRONG, policies=world(READY).policies), PluginExit.DONE, ""),
    ],
)
def test_pods_with_annotations_have_their_own_tree(
    found: World, code: PluginExit, text: str, run: Run, api: FakeApi
) -> None:
    """Leave out pods whose directions all have a policy, and pods whose annotations are not read."""
    found.store(api)
    api.put(NAMESPACES, "shop")
    result = run("status", "-n", "shop")
    assert result.code == code, result.out
    assert text in result.out
    assert ("Pods with annotations" in result.out) == bool(text)
    documents = json.loads(run("status", "-n", "shop", "-o", "json").out)["annotatedPods"]
    assert [each["pod"] for each in documents] == (["web-1"] if text else [])


@pytest.mark.parametrize("policies", [[], world(READY).policies])
def test_annotations_of_which_nothing_shows_that_they_are_read_are_unknown(
    policies: list[dict[str, Any]], run: Run, api: FakeApi
) -> None:
    """Count the pod as unknown, and name the missing right, also beside a policy that is enforced."""
    found = annotated(BOTH, policies=policies)
    for each in policies:
        each["spec"]["podSelector"] = {"matchLabels": {"app": "other"}}
    without_reports(api, found, {"pods": []})
    api.put(NAMESPACES, "shop")
    result = run("status", "-n", "shop", "-o", "json")
    assert result.code == PluginExit.UNKNOWN, result.out
    (shown,) = json.loads(result.out)["annotatedPods"]
    (cause,) = shown["causes"]
    assert (shown["pod"], cause["code"]) == ("web-1", "RightMissing")
    assert "list tokenbucketnodes" in cause["detail"]


def test_a_node_with_many_deviating_pods_names_some(run: Run, api: FakeApi) -> None:
    annotated(WRONG).store(api)
    api.put(NAMESPACES, "shop")
    for number in range(30):
        about = {"annotations": WRONG, "labels": {}}
        api.put(PODS, f"web-{number:02}", "shop", metadata=about, spec={"nodeName": "n1"}, status={})
    out = run("status", "-n", "shop").out
    assert out.count("InvalidAnnotation") == 20
    assert "and 11 more pods" in out


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
    assert (result.code, result.out) == (PluginExit.NOT_LIMITED, "no TokenBucketPolicy in namespace empty\n")
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
