"""The custom resource definitions in the chart."""

from __future__ import annotations

import yaml

from tests.chart.chart import FOLDER, ROOT, Chart, Manifests

SOURCE = ROOT / "crds" / "tokenbucket.yaml"


def test_the_charts_copy_is_the_source() -> None:
    """'make generate' copies it."""
    assert (FOLDER / "files" / "crds.yaml").read_text() == SOURCE.read_text()


def test_they_are_installed_as_the_source_has_them(default: Manifests) -> None:
    """But for labels and annotations."""
    expected = list(filter(None, yaml.safe_load_all(SOURCE.read_text())))
    rendered = default.of("CustomResourceDefinition")
    assert [each["metadata"]["name"] for each in rendered] == [each["metadata"]["name"] for each in expected]
    assert [each["spec"] for each in rendered] == [each["spec"] for each in expected]


def test_they_are_kept_on_uninstall(default: Manifests) -> None:
    """To delete one is to delete every policy of the cluster."""
    for each in default.of("CustomResourceDefinition"):
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_they_can_be_left_out(chart: Chart) -> None:
    """For those who install them by other means."""
    assert not chart.render({"crds": {"install": False}}).of("CustomResourceDefinition")
