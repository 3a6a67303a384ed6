"""The custom resource definitions in the chart."""

from __future__ import annotations

import yaml

from tests.chart.chart import FOLDER, ROOT, Chart, Manifests

SOURCE = ROOT / "crds" / "tokenbucket.yaml"


def test_the_copy_in_the_chart_equals_the_source() -> None:
    """Generate it by 'make generate'."""
    assert (FOLDER / "files" / "crds.yaml").read_text() == SOURCE.read_text()


def test_crds_are_installed_as_in_the_source(default: Manifests) -> None:
    """Add only labels and annotations."""
    expected = list(filter(None, yaml.safe_load_all(SOURCE.read_text())))
    rendered = default.of("CustomResourceDefinition")
    assert [each["metadata"]["name"] for each in rendered] == [each["metadata"]["name"] for each in expected]
    assert [each["spec"] for each in rendered] == [each["spec"] for each in expected]


def test_crds_are_kept_on_uninstall(default: Manifests) -> None:
    """Keep every policy of the cluster."""
    for each in default.of("CustomResourceDefinition"):
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_can_be_left_out(chart: Chart) -> None:
    """Let users install them by other means."""
    assert not chart.render({"crds": {"install": False}}).of("CustomResourceDefinition")
