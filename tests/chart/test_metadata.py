"""The metadata of the chart."""

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
def test_helm_lint_passes(chart: Chart, values: dict[str, object]) -> None:
    """Treat warnings as errors."""
    assert "[WARNING]" not in chart.run("lint", "--strict", FOLDER, values=values)


def test_helm_unittest_passes(untt: Path, tmp_path: Path) -> None:
    """Run the tests in charts/tokenbucket/tests."""
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)  # it writes beside them
    done = subprocess.run([untt, "--strict", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"Tests:\s+(\d+) passed", done.stdout)[0]) > 0


def test_the_chart_has_the_version_of_the_program() -> None:
    """Avoid an image that does not know the options of the chart."""
    assert METADATA["appVersion"] == __version__
    [image] = ANNOTATIONS["images"]
    assert image["image"] == f"ghcr.io/tokenbucket/tokenbucket:{__version__}"


def test_the_listed_custom_resources_are_those_of_the_chart(default: Manifests) -> None:
    """Check the examples against them."""
    listed = {(each["name"], each["kind"], each["version"]) for each in ANNOTATIONS["crds"]}
    assert listed == {
        (each["metadata"]["name"], each["spec"]["names"]["kind"], each["spec"]["versions"][0]["name"])
        for each in default.of("CustomResourceDefinition")
    }


def test_the_examples_of_the_chart_are_valid_policies() -> None:
    """Read those of Chart.yaml and of the notes after the installation."""
    notes = (FOLDER / "templates" / "NOTES.txt").read_text()
    [printed] = re.findall(r"<<'YAML'\n(.*?)\n +YAML\n", notes, re.DOTALL)
    for example in (*ANNOTATIONS["crdsExamples"], yaml.safe_load(printed)):
        parse_policy(example)


def test_objects_are_named_after_the_release(chart: Chart) -> None:
    """Keep two releases apart, except for objects of the API itself."""
    rendered = chart.render(EVERYTHING, release="other")
    for each in rendered.documents:
        if each["kind"] != "CustomResourceDefinition":
            assert each["metadata"]["name"].startswith("other-tokenbucket")


def test_every_object_has_the_recommended_labels(full: Manifests) -> None:
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
    """Keep 'kubectl apply' without a namespace from splitting the release."""
    for each in full.documents:
        expected = None if each["kind"] in CLUSTER_SCOPED else NAMESPACE
        if each["metadata"]["name"] == f"tokenbucket-controller-{NAMESPACE}":
            expected = "kube-system"  # the Lease that all releases share
        assert each["metadata"].get("namespace") == expected, each["metadata"]["name"]


def test_the_default_values_create_only_these_objects(default: Manifests) -> None:
    """Compare kinds."""
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
    """Prefer a tag or a digest that the user sets."""
    released, own = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    subprocess.run([ROOT / "hack/release/set-digest.sh", released, copy], check=True)

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
    """Leave the chart unchanged."""
    copy = shutil.copytree(FOLDER, tmp_path / FOLDER.name)
    done = subprocess.run([ROOT / "hack/release/set-digest.sh", digest, copy], capture_output=True, text=True)
    assert done.returncode
    assert "is no digest" in done.stderr
    assert (copy / "Chart.yaml").read_text() == (FOLDER / "Chart.yaml").read_text()


def test_the_icon_is_in_the_repository() -> None:
    """Provide the file that Artifact Hub shows from the main branch."""
    path = METADATA["icon"].partition("/main/")[2]
    assert (ROOT / path).read_text().startswith("<svg")
