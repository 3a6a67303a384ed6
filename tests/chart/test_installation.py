"""The tools that install the chart: all of them send the same objects to the API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chart.chart import EVERYTHING, Chart, Manifests, Values

BOTH = pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])


def objects(manifests: Manifests) -> list[str]:
    """Return the objects, without their order."""
    return sorted(json.dumps(each, sort_keys=True) for each in manifests.documents)


@BOTH
def test_both_versions_of_helm_install_the_same(chart: Chart, chart4: Chart, values: Values) -> None:
    """tests/e2e runs the hooks of both."""
    assert objects(chart4.template(values)) == objects(chart.template(values))


@BOTH
@pytest.mark.parametrize("version", ["chart", "chart4"])
def test_kustomize_applies_what_helm_installs_without_hooks(
    request: pytest.FixtureRequest, kustomize: Path, version: str, values: Values, tmp_path: Path
) -> None:
    """With either version of helm. It asks for hooks, as its default is."""
    chart: Chart = request.getfixturevalue(version)
    assert objects(chart.kustomize(kustomize, tmp_path, values)) == objects(chart.template(values))
