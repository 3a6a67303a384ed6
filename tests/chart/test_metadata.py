"""What the chart says about itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.chart import EVERYTHING, FOLDER, NAMESPACE, ROOT, Chart, Manifests
from tokenbucket import __version__
from tokenbucket.core.api.parse import parse_policy

METADATA = yaml.safe_load((FOLDER / "Chart.yaml").read_text())
ANNOTATIONS = {
    key.removeprefix("artifacthub.io/"): yaml.safe_load(value)
    for key, value in METADATA["annotations"].items()
    if key.startswith("artifacthub.io/")
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_helm_finds_nothing_to_complain_of(chart: Chart, values: dict[str, object]) -> None:
    """Warnings are errors."""
    assert "[WARNING]" not in chart.run("lint", "--strict", FOLDER, values=values)


def test_the_charts_own_tests_pass(untt: Path, tmp_path: Path) -> None:
    """Those of helm-unittest, in charts/tokenbucket/tests."""
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)  # it writes beside them
    done = subprocess.run([untt, "--strict", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"Tests:\s+(\d+) passed", done.stdout)[0]) > 0


def test_it_is_for_the_version_that_is_here() -> None:
    """The image of another version may not know the options that the chart gives."""
    assert METADATA["appVersion"] == __version__
    [image] = ANNOTATIONS["images"]
    assert image["image"] == f"ghcr.io/tokenbucket/tokenbucket:{__version__}"


def test_the_custom_resources_that_it_lists_are_those_that_it_has(default: Manifests) -> None:
    """And each example is one of them."""
    listed = {(each["name"], each["kind"], each["version"]) for each in ANNOTATIONS["crds"]}
    assert listed == {
        (each["metadata"]["name"], each["spec"]["names"]["kind"], each["spec"]["versions"][0]["name"])
        for each in default.of("CustomResourceDefinition")
    }


def test_its_examples_are_policies() -> None:
    """In Chart.yaml and in what helm prints after installing."""
    notes = (FOLDER / "templates" / "NOTES.txt").read_text()
    [printed] = re.findall(r"<<'YAML'\n(.*?)\n +YAML\n", notes, re.DOTALL)
    for example in (*ANNOTATIONS["crdsExamples"], yaml.safe_load(printed)):
        parse_policy(example)


def test_objects_are_named_after_the_release(chart: Chart) -> None:
    """But those of the API itself, so that two releases do not take each other's."""
    rendered = chart.render(EVERYTHING, release="other")
    for each in rendered.documents:
        if each["kind"] != "CustomResourceDefinition":
            assert each["metadata"]["name"].startswith("other-tokenbucket")


def test_every_object_says_what_it_belongs_to(full: Manifests) -> None:
    """With the recommended labels."""
    for each in full.documents:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "tokenbucket"
        assert labels["app.kubernetes.io/instance"] == "tokenbucket"
        assert labels["app.kubernetes.io/version"] == __version__
        assert labels["app.kubernetes.io/component"]


CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def test_every_object_names_the_namespace_of_the_release(full: Manifests) -> None:
    """Otherwise 'kubectl apply' without a namespace installs a half of the release in another one."""
    for each in full.documents:
        expected = None if each["kind"] in CLUSTER_SCOPED else NAMESPACE
        if each["metadata"]["name"] == f"tokenbucket-controller-{NAMESPACE}":
            expected = "kube-system"  # the Lease that all releases share
        assert each["metadata"].get("namespace") == expected, each["metadata"]["name"]


def test_nothing_is_made_that_was_not_asked_for(default: Manifests) -> None:
    """By kind."""
    assert {each["kind"] for each in default.documents} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "DaemonSet",
        "Deployment",
        "Job",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }


def test_a_released_chart_uses_its_image_by_digest(chart: Chart, tmp_path: Path) -> None:
    """A tag or a digest that the user sets has precedence."""
    released, own = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    subprocess.run([ROOT / "hack" / "set-digest.sh", released, copy], check=True)

    def images(image: dict[str, str]) -> set[str]:
        text = chart.run("template", "tokenbucket", copy, values={"image": image})
        return set(re.findall(r"image: (\S+)", text)) - {"|"}

    assert images({}) == {f"ghcr.io/tokenbucket/tokenbucket@{released}"}
    assert images({"tag": "mine"}) == {"ghcr.io/tokenbucket/tokenbucket:mine"}
    assert images({"digest": own}) == {f"ghcr.io/tokenbucket/tokenbucket@{own}"}
    annotations = yaml.safe_load((copy / "Chart.yaml").read_text())["annotations"]
    [listed] = yaml.safe_load(annotations["artifacthub.io/images"])
    assert listed["image"] == f"ghcr.io/tokenbucket/tokenbucket@{released}"


@pytest.mark.parametrize("digest", ["", "latest", "sha256:short"])
def test_a_release_without_a_digest_fails(tmp_path: Path, digest: str) -> None:
    """And leaves the chart as it was."""
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    done = subprocess.run([ROOT / "hack" / "set-digest.sh", digest, copy], capture_output=True, text=True)
    assert done.returncode
    assert "is no digest" in done.stderr
    assert (copy / "Chart.yaml").read_text() == (FOLDER / "Chart.yaml").read_text()


def test_its_icon_is_in_the_repository() -> None:
    """Artifact Hub shows the one of the main branch."""
    path = METADATA["icon"].partition("/main/")[2]
    assert (ROOT / path).read_text().startswith("<svg")
