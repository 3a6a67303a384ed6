"""The hooks of helm before an uninstallation and for 'helm test'."""

from __future__ import annotations

import pytest

from tests.chart.chart import EVERYTHING, Chart, Document, Manifests

HELM_TIMEOUT_S = 300
"""The default time for which helm waits for a hook."""
RUN = {"pre-delete": ("Job", "tokenbucket-cleanup"), "test": ("Pod", "tokenbucket-check")}


def annotations(document: Document) -> dict[str, str]:
    return document["metadata"].get("annotations", {})


def hooks(manifests: Manifests, event: str) -> list[Document]:
    return [each for each in manifests.documents if annotations(each).get("helm.sh/hook") == event]


def weight(document: Document) -> int:
    return int(annotations(document)["helm.sh/hook-weight"])


@pytest.mark.parametrize("event", RUN)
def test_objects_of_a_hook_exist_before_it_and_are_deleted_after_it(default: Manifests, event: str) -> None:
    """Request the deletion: helm deletes such objects only on request, and never when uninstalling."""
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
def test_roles_exist_before_their_bindings(default: Manifests, event: str) -> None:
    """Order them by weight, as helm does."""
    roles = [weight(each) for each in hooks(default, event) if each["kind"] in {"Role", "ClusterRole"}]
    bindings = [weight(each) for each in hooks(default, event) if each["kind"].endswith("Binding")]
    assert max(roles) < min(bindings)


@pytest.mark.parametrize("event", RUN)
def test_helm_prints_the_output_of_a_hook(default: Manifests, event: str) -> None:
    """Show the unreachable nodes, because the pod is deleted soon."""
    policy = annotations(default.one(*RUN[event]))["helm.sh/hook-output-log-policy"]
    assert set(policy.split(",")) == {"hook-succeeded", "hook-failed"}


def test_an_uninstallation_ends_before_the_timeout_of_helm(default: Manifests) -> None:
    """End it if no pod starts, for lack of an image or a node."""
    spec = default.one("Job", "tokenbucket-cleanup")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [timeout] = [each for each in container["args"] if each.startswith("--timeout=")]
    assert int(timeout.partition("=")[2]) < spec["activeDeadlineSeconds"] < HELM_TIMEOUT_S


def test_the_cleanup_changes_the_configmap_that_the_agents_watch(default: Manifests) -> None:
    """Compare the names."""
    [switch] = default.of("ConfigMap")
    argument = f"--enforcement-configmap={switch['metadata']['name']}"
    for name in ("tokenbucket-agent", "tokenbucket-cleanup"):
        assert argument in default.pods()[name]["containers"][0]["args"]


def test_only_helm_gets_hooks(chart: Chart) -> None:
    """Give none to tools that treat hooks as ordinary objects. Nothing else differs."""
    for values in ({}, EVERYTHING):
        applied = chart.template(values).documents
        assert not [each for each in applied if "helm.sh/hook" in annotations(each)]
        installed = chart.render(values).documents
        assert [each for each in installed if "helm.sh/hook" not in annotations(each)] == list(applied)


def test_the_cleanup_acts_only_for_a_release_of_helm(chart: Chart) -> None:
    """Find the agents in its namespace, by the name of the release."""
    job = chart.render(release="limits").one("Job", "limits-tokenbucket-cleanup")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert "--helm-release=limits" in container["args"]


def test_no_chart_renders_the_override(full: Manifests) -> None:
    """Keep upgrades and GitOps tools from reverting it."""
    assert {each["metadata"]["name"] for each in full.of("ConfigMap")} == {
        "tokenbucket",
        "tokenbucket-dashboard",
    }


def test_the_cleanup_can_be_left_out(chart: Chart) -> None:
    """Leave out all its objects."""
    rendered = chart.render({"cleanup": {"enabled": False}})
    assert not hooks(rendered, "pre-delete")
