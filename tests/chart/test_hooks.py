"""What helm runs before uninstalling, and for 'helm test'."""

from __future__ import annotations

import pytest

from tests.chart.chart import EVERYTHING, Chart, Document, Manifests

HELM_TIMEOUT_S = 300
"""How long helm waits for a hook unless told otherwise."""
RUN = {"pre-delete": ("Job", "tokenbucket-cleanup"), "test": ("Pod", "tokenbucket-check")}


def annotations(document: Document) -> dict[str, str]:
    return document["metadata"].get("annotations", {})


def hooks(manifests: Manifests, event: str) -> list[Document]:
    return [each for each in manifests.documents if annotations(each).get("helm.sh/hook") == event]


def weight(document: Document) -> int:
    return int(annotations(document)["helm.sh/hook-weight"])


@pytest.mark.parametrize("event", RUN)
def test_what_a_hook_needs_is_there_before_it_and_goes_after_it(default: Manifests, event: str) -> None:
    """Helm deletes a hook's objects only where they say so, and never when uninstalling."""
    kind, name = RUN[event]
    runs = default.one(kind, name)
    needed = [each for each in hooks(default, event) if each is not runs]
    assert sorted(each["kind"] for each in needed) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ]
    assert max(map(weight, needed)) < weight(runs)
    for each in (*needed, runs):
        assert set(annotations(each)["helm.sh/hook-delete-policy"].split(",")) == {
            "before-hook-creation",
            "hook-succeeded",
            "hook-failed",
        }


@pytest.mark.parametrize("event", RUN)
def test_roles_are_there_before_their_bindings(default: Manifests, event: str) -> None:
    """Helm orders by weight first."""
    roles = [weight(each) for each in hooks(default, event) if each["kind"] in {"Role", "ClusterRole"}]
    bindings = [weight(each) for each in hooks(default, event) if each["kind"].endswith("Binding")]
    assert max(roles) < min(bindings)


@pytest.mark.parametrize("event", RUN)
def test_helm_prints_what_a_hook_says(default: Manifests, event: str) -> None:
    """Which nodes were not reached, for one; its pod is gone when somebody looks."""
    policy = annotations(default.one(*RUN[event]))["helm.sh/hook-output-log-policy"]
    assert set(policy.split(",")) == {"hook-succeeded", "hook-failed"}


def test_uninstalling_ends_before_helm_gives_up(default: Manifests) -> None:
    """Also where the image cannot be pulled or no node takes the pod."""
    spec = default.one("Job", "tokenbucket-cleanup")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [timeout] = [each for each in container["args"] if each.startswith("--timeout=")]
    assert int(timeout.partition("=")[2]) < spec["activeDeadlineSeconds"] < HELM_TIMEOUT_S


def test_the_cleanup_turns_the_switch_that_the_agents_watch(default: Manifests) -> None:
    """By one name, that of the ConfigMap."""
    [switch] = default.of("ConfigMap")
    argument = f"--enforcement-configmap={switch['metadata']['name']}"
    for name in ("tokenbucket-agent", "tokenbucket-cleanup"):
        assert argument in default.pods()[name]["containers"][0]["args"]


def test_only_helm_gets_hooks(chart: Chart) -> None:
    """Other tools take hooks for ordinary objects: the cleanup would turn off what was just installed.

    Nothing else differs between the two.
    """
    for values in ({}, EVERYTHING):
        applied = chart.template(values).documents
        assert not [each for each in applied if "helm.sh/hook" in annotations(each)]
        installed = chart.render(values).documents
        assert [each for each in installed if "helm.sh/hook" not in annotations(each)] == list(applied)


def test_the_cleanup_acts_only_for_a_release_of_helm(chart: Chart) -> None:
    """It finds the agents in its namespace, by the name of the release."""
    job = chart.render(release="limits").one("Job", "limits-tokenbucket-cleanup")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert "--helm-release=limits" in container["args"]


def test_no_chart_renders_the_override(full: Manifests) -> None:
    """What a chart renders, an upgrade or a GitOps tool reverts."""
    assert {each["metadata"]["name"] for each in full.of("ConfigMap")} == {
        "tokenbucket",
        "tokenbucket-dashboard",
    }


def test_the_cleanup_can_be_left_out(chart: Chart) -> None:
    """With all that it needs."""
    rendered = chart.render({"cleanup": {"enabled": False}})
    assert not hooks(rendered, "pre-delete")
