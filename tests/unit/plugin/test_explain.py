"""The explanation of a pod names the cause of its state, for every state that a cluster can show."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.plugin.conftest import Run
from tests.unit.plugin.world import LIMIT, Objects, World, condition, policy, rfc3339
from tokenbucket.core.api.policy import FEATURES, Direction, Mode
from tokenbucket.core.api.protection import protection_error
from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.codes import Code, State
from tokenbucket.plugin.explain.collect import Collector
from tokenbucket.plugin.explain.explanation import document, explain

Change = Callable[[World], None]


def explained(world: World, *denied: str) -> dict[str, Any]:
    """Return the document of the explanation."""
    return document(explain(Collector(Objects(world, frozenset(denied))).of("shop", "web-1")))


def codes(document: dict[str, Any]) -> list[str]:
    return [each["code"] for each in document["causes"]]


def changes(name: str) -> Callable[[Change], Change]:
    """Register a change of the world under the code that it causes."""

    def register(change: Change) -> Change:
        CASES.append((name, change))
        return change

    return register


CASES: list[tuple[str, Change]] = []


@changes(Code.ENFORCED)
def nothing(_: World) -> None: ...


@changes(Code.OBSERVED)
def policy_observes(world: World) -> None:
    world.policies[0]["spec"]["mode"] = "Observe"


@changes(Code.FINISHED)
def pod_has_ended(world: World) -> None:
    world.pod["status"]["phase"] = "Succeeded"


@changes(Code.NO_POLICY)
def namespace_without_policy(world: World) -> None:
    world.policies = []


@changes(Code.NO_MATCH)
def label_differs(world: World) -> None:
    world.pod["metadata"]["labels"] = {"app": "webs"}


@changes(Code.POLICY_OFF)
def policy_off(world: World) -> None:
    world.policies[0]["spec"]["mode"] = "Off"


@changes(Code.POLICY_OFF)
def policy_disabled(world: World) -> None:
    world.policies[0]["spec"]["mode"] = "Disabled"


@changes(Code.POLICY_INVALID)
def invalid_rate(world: World) -> None:
    world.seen_policies = []
    world.policies[0]["spec"]["ingress"] = {"rate": {"bits": "10Mbps"}}


@changes(Code.POLICY_INVALID)
def invalid_selector(world: World) -> None:
    world.seen_policies = []
    world.policies[0]["spec"]["podSelector"] = {"matchLabels": {"app": None}}


@changes(Code.PROTECTED_NAMESPACE)
def protected_namespace(world: World) -> None:
    world.seen_policies = []
    message = protection_error(world.policies[0]["metadata"], ["shop"])
    world.policies[0]["status"] = {"conditions": [condition("Accepted", "False", "Invalid", message)]}


@changes(Code.COMMAND_TOO_OLD)
def policy_of_a_newer_version(world: World) -> None:
    world.seen_policies = []
    world.policies.append(policy("newer", egress={"rate": {"bits": "1M"}, "exceedAction": "Teleport"}))
    world.policies[1]["status"] = {"conditions": [condition("Accepted", "True")]}


@changes(Code.AGENT_REJECTS)
def agent_rejects(world: World) -> None:
    entry = world.status()["policies"][0]
    world.report_fields["policies"] = [{**entry, "rejected": "spec.ingress.queue: unknown"}]


@changes(Code.AGENT_TOO_OLD)
def agent_without_a_feature(world: World) -> None:
    world.policies[0]["spec"]["ingress"] = {**LIMIT, "exceedAction": "Delay", "queue": "Fair"}
    world.report_fields["agent"] = {"version": "0.1.0", "features": [*{*FEATURES} - {"Fair"}]}


@changes(Code.ENFORCEMENT_OFF)
def override_config_map(world: World) -> None:
    world.enforcement, world.override = Mode.OFF, {"enforcement": "Off"}


@changes(Code.ENFORCEMENT_OFF)
def mode_of_the_release(world: World) -> None:
    world.enforcement, world.config = Mode.OFF, {"enforcement": "off"}


@changes(Code.ENFORCEMENT_OBSERVE)
def label_of_the_node(world: World) -> None:
    world.enforcement = Mode.OBSERVE
    world.node["metadata"]["labels"]["tokenbucket.dev/enforcement"] = "Observe"


@changes(Code.UPDATING)
def mode_is_being_changed(world: World) -> None:
    world.enforcement, world.config = Mode.OFF, {"enforcement": "Enforce"}


@changes(Code.CLEANED_UP)
def cleanup(world: World) -> None:
    world.report_fields["clean"] = True


@changes(Code.NOT_SCHEDULED)
def pod_without_a_node(world: World) -> None:
    world.pod["spec"], world.pod["status"] = {}, {"phase": "Pending"}


@changes(Code.NODE_MISSING)
def node_is_gone(world: World) -> None:
    world.node, world.agent, world.has_report = None, None, False


@changes(Code.NODE_WITHOUT_AGENTS)
def virtual_node_by_label(world: World) -> None:
    world.agent, world.has_report = None, False
    world.node["metadata"]["labels"]["type"] = "virtual-kubelet"


@changes(Code.NODE_WITHOUT_AGENTS)
def virtual_node_by_taint(world: World) -> None:
    world.agent, world.has_report = None, False
    world.node["spec"]["taints"] = [{"key": "virtual-kubelet.io/provider", "value": "azure"}]


@changes(Code.NODE_WITHOUT_AGENTS)
def fargate(world: World) -> None:
    world.agent, world.has_report = None, False
    world.node["metadata"]["labels"]["eks.amazonaws.com/compute-type"] = "fargate"


@changes(Code.NODE_WITHOUT_AGENTS)
def windows(world: World) -> None:
    world.agent, world.has_report = None, False
    world.node["metadata"]["labels"]["kubernetes.io/os"] = "windows"


@changes(Code.NO_AGENT)
def no_agent_ever(world: World) -> None:
    world.agent, world.has_report = None, False


@changes(Code.AGENT_SILENT)
def agent_without_a_first_report(world: World) -> None:
    world.has_report = False


@changes(Code.AGENT_GONE)
def agent_deleted(world: World) -> None:
    world.agent = None
    world.agent_ready = condition("AgentReady", "False", "NoPod", "the node has no agent pod")


@changes(Code.AGENT_NOT_SCHEDULED)
def agent_unbound(world: World) -> None:
    fields = [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    world.agent["spec"] = {"affinity": affinity}
    message = "0/1 nodes are available: 1 Insufficient memory."
    world.agent["status"] = {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", "Unschedulable", message)],
    }
    world.has_report = False


@changes(Code.AGENT_NOT_READY)
def agent_crashes(world: World) -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}
    world.agent["status"] = {
        "conditions": [condition("Ready", "False")],
        "containerStatuses": [{"state": {"waiting": waiting}}],
    }
    world.agent_ready = condition("AgentReady", "False", "NotReady", "pod agent-x is not ready")


@changes(Code.AGENT_SILENT)
def agent_is_silent(world: World) -> None:
    message = "pod agent-x has not reported for too long"
    world.agent_ready = condition("AgentReady", "False", "Silent", message)


@changes(Code.AGENT_SILENT)
def agent_is_silent_and_no_controller_runs(world: World) -> None:
    world.synced_s_ago = 1000.0


@changes(Code.UPDATING)
def policy_was_edited(world: World) -> None:
    world.seen_policies = [policy()]
    world.policies[0]["metadata"]["generation"] = 2


@changes(Code.UPDATING)
def policy_was_recreated(world: World) -> None:
    world.seen_policies = [policy()]
    world.policies[0]["metadata"]["uid"] = "another"


@changes(Code.UPDATING)
def winner_was_deleted(world: World) -> None:
    world.seen_policies = [policy(), policy("deleted", priority=5)]


@changes(Code.PENDING)
def policy_is_new(world: World) -> None:
    world.seen_policies = []


@changes(Code.PENDING)
def pod_is_new(world: World) -> None:
    world.pod["metadata"]["creationTimestamp"] = rfc3339(0)


@changes(Code.PENDING)
def agent_is_programming(world: World) -> None:
    entry = world.status()["policies"][0]
    world.report_fields["policies"] = [{**entry, "programmed": 0, "pending": 1}]


@changes(Code.REPORT_INCOMPLETE)
def too_many_policies(world: World) -> None:
    world.report_fields |= {"policies": [], "policiesOmitted": 3}


@changes(Code.REPORT_INCOMPLETE)
def too_many_pods(world: World) -> None:
    world.reason = Reason.SHADOWED
    world.report_fields |= {"pods": [], "podsOmitted": 1}


@changes("FromTheFuture")
def reason_of_a_newer_agent(world: World) -> None:
    entry = {"namespace": "shop", "name": "web-1", "policy": "web", "direction": "ingress"}
    world.report_fields["pods"] = [{**entry, "reason": "FromTheFuture", "message": "pod: odd; wait"}]


ANNOTATION = "kubernetes.io/ingress-bandwidth"


@changes(Code.ENFORCED)
def annotation_alone(world: World) -> None:
    world.policies, world.reads_annotations = [], True
    world.pod["metadata"]["annotations"] = {ANNOTATION: "10M"}


@changes(Reason.INVALID_ANNOTATION)
def annotation_with_an_error(world: World) -> None:
    world.policies, world.reads_annotations = [], True
    world.pod["metadata"]["annotations"] = {ANNOTATION: "fast"}


@changes(Code.ANNOTATIONS_NOT_READ)
def annotation_is_not_read(world: World) -> None:
    world.policies = []
    world.pod["metadata"]["annotations"] = {ANNOTATION: "10M"}


@pytest.mark.parametrize(("code", "change"), CASES, ids=[change.__name__ for _, change in CASES])
def test_the_cause_is_named(code: str, change: Change) -> None:
    world = World()
    change(world)
    found = explained(world)
    assert codes(found) == [code]
    assert all(each["meaning"] and each["fix"] for each in found["causes"])
    assert (found["exitCode"] == PluginExit.DONE) == (code == Code.ENFORCED)


def test_a_case_exists_for_each_cause() -> None:
    apart = {Code.RIGHT_MISSING}
    assert {code for code, _ in CASES} >= {code.value for code in Code} - apart


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_an_agent_is_the_cause(reason: Reason) -> None:
    world = World()
    if reason is Reason.HOST_NETWORK:  # an agent does not list exempt pods
        world.pod["spec"]["hostNetwork"] = True
    else:
        world.reason = reason
    found = explained(world)
    assert codes(found) == [reason]
    first = found["causes"][0]
    assert (first["meaning"], first["fix"]) == (reason.cause, reason.fix)
    if reason.effect is not Effect.EXEMPT:
        assert first["detail"] == f"eth0: message of {reason}; act"
        assert (first["direction"], first["policy"]) == ("ingress", "web")
    expected = PluginExit.NOT_LIMITED if reason.effect is Effect.EXEMPT else PluginExit.DEVIATES
    assert found["exitCode"] == expected


def test_a_reason_of_one_direction_leaves_the_other_as_it_is() -> None:
    world = World(policies=[policy(egress=LIMIT)], reason=Reason.SHADOWED, directions=(Direction.EGRESS,))
    found = explained(world)
    assert codes(found) == [Code.ENFORCED, Reason.SHADOWED]
    assert [each["state"] for each in found["limits"]] == [State.ENFORCED, State.DEVIATES]
    assert found["state"] == State.DEVIATES


def test_the_winner_of_two_policies_is_named_with_its_advantage() -> None:
    world = World(
        policies=[policy("all", egress=LIMIT), policy("web", priority=5, ingress={"rate": {"bits": "1M"}})]
    )
    found = explained(world)
    assert [each["policy"] for each in found["limits"]] == ["web", "all"]
    assert [each["name"] for each in found["policies"]] == ["web", "all"]
    assert "priority 5 is higher than 0" in found["policies"][1]["why"]
    assert found["limits"][0]["ifDeleted"].startswith("policy all, 10Mbit/s")
    assert found["limits"][1]["ifDeleted"] == "no limit"
    assert found["exitCode"] == PluginExit.DONE


@pytest.mark.parametrize("policies", [[], [policy()]])
def test_the_outcome_without_the_annotations_is_that_of_the_policies(policies: list[Any]) -> None:
    """Name the annotations for a direction without a policy, and as the outcome of one with a policy."""
    world = World(policies=policies, reads_annotations=True)
    egress = {"kubernetes.io/egress-bandwidth": "10M"}
    world.pod["metadata"]["annotations"] = {ANNOTATION: "20M", **egress}
    found = {each["direction"]: each for each in explained(world)["limits"]}
    assert (found["egress"]["policy"], found["egress"]["ifDeleted"]) == ("@annotations", "no limit")
    outcome = "policy @annotations, 20Mbit/s" if policies else "no limit"
    assert found["ingress"]["ifDeleted"].startswith(outcome)


def test_a_rejected_policy_beside_another_one_is_a_deviation() -> None:
    valid, invalid = policy(), policy("other", ingress={"rate": {"bits": "1Mbps"}})
    found = explained(World(policies=[valid, invalid], seen_policies=[valid]))
    assert codes(found) == [Code.ENFORCED, Code.POLICY_INVALID]
    assert found["exitCode"] == PluginExit.DEVIATES
    assert found["policies"][1]["name"] == "other"
    assert found["policies"][1]["why"].startswith("rejected: spec.ingress.rate.bits")


@pytest.mark.parametrize(
    ("selector", "labels", "miss"),
    [
        ({"matchLabels": {"app": "web"}}, {"app": "webs"}, "requires app=web; the pod has app=webs"),
        (
            {"matchLabels": {"app": "web", "tier": "a"}},
            {"app": "web"},
            "requires tier=a; the pod has no label tier",
        ),
        (
            {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["b", "a"]}]},
            {"app": "a"},
            "requires app notin (a, b); the pod has app=a",
        ),
        (
            {"matchExpressions": [{"key": "app", "operator": "In", "values": ["b", "a"]}]},
            {},
            "requires app in (a, b); the pod has no label app",
        ),
        (
            {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            {},
            "requires the label app; the pod has no label app",
        ),
        (
            {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]},
            {"app": "a"},
            "requires no label app; the pod has app=a",
        ),
    ],
)
def test_the_closest_selector_names_the_labels_that_differ(
    selector: dict[str, Any], labels: dict[str, str], miss: str
) -> None:
    far = policy("far", podSelector={"matchLabels": {"x": "1", "y": "2", "z": "3"}})
    world = World(policies=[far, policy(podSelector=selector)])
    world.pod["metadata"]["labels"] = labels
    assert explained(world)["causes"][0]["detail"] == f"policy web {miss}"


@pytest.mark.parametrize("enforcement", ["Off", "Observe"])
@pytest.mark.parametrize("place", ["label", "override", "release"])
def test_the_kill_switch_names_its_place(enforcement: str, place: str) -> None:
    world = World(enforcement=Mode(enforcement))
    release = "ConfigMap tokenbucket-system/tokenbucket"
    texts = {
        "label": "label tokenbucket.dev/enforcement of node n1",
        "override": f"{release}-override (since 2026-11-01T00:00:00Z); delete it",
        "release": f"{release}, from the chart value enforcement",
    }
    if place == "label":
        world.node["metadata"]["labels"]["tokenbucket.dev/enforcement"] = enforcement
    elif place == "override":
        world.override = {"enforcement": enforcement}
    else:
        world.config = {"enforcement": enforcement}
    assert explained(world)["causes"][0]["detail"] == texts[place]


def test_the_kill_switch_without_rights_names_what_the_agent_reports() -> None:
    notice = "override ConfigMap: sets Off since 2026-11-01T00:00:00Z; delete it to end the override"
    world = World(enforcement=Mode.OFF, report_fields={"problem": notice})
    found = explained(world, "configmaps")
    assert found["causes"][0]["detail"] == notice
    assert found["missingRights"]


def test_without_the_right_to_read_reports_the_state_is_unknown() -> None:
    found = explained(World(), "tokenbucketnodes", "nodes")
    assert codes(found) == [Code.RIGHT_MISSING]
    assert found["exitCode"] == PluginExit.UNKNOWN
    assert "read tokenbucketnodes.tokenbucket.dev" in found["causes"][0]["detail"]
    assert found["limits"][0]["limit"].startswith("10Mbit/s")


def test_without_the_right_to_read_reports_the_status_of_the_policy_names_the_reason() -> None:
    world = World()
    problem = {"pod": "web-1", "node": "n1", "direction": "ingress", "reason": "Shadowed", "message": "a; b"}
    world.policies[0]["status"] = {"problems": [problem]}
    found = explained(world, "tokenbucketnodes", "nodes")
    assert codes(found) == [Reason.SHADOWED]
    assert found["exitCode"] == PluginExit.DEVIATES


@pytest.mark.parametrize("ready", ["True", "False"])
def test_a_missing_right_is_never_a_good_state(ready: str) -> None:
    for denied in (["tokenbucketnodes"], ["tokenbucketnodes", "nodes", "configmaps"]):
        world = World()
        world.agent["status"] = {"conditions": [condition("Ready", ready)]}
        assert explained(world, *denied)["exitCode"] != PluginExit.DONE


def test_the_exit_status_of_the_command_is_that_of_the_explanation(run: Run, api: FakeApi) -> None:
    World().store(api)
    command = ("explain", "pod", "web-1", "-n", "shop")
    assert run(*command).code == PluginExit.DONE
    api.fail(lambda seen: "tokenbucketnodes" in seen.path, 403)
    result = run(*command, "-o", "json")
    assert result.code == json.loads(result.out)["exitCode"] == PluginExit.UNKNOWN
    assert json.loads(result.out)["missingRights"] == [
        "get tokenbucketnodes.tokenbucket.dev (cluster-scoped)"
    ]
