"""The tools that install the chart send the same objects to the API server."""

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
def test_both_versions_of_helm_install_the_same_objects(chart: Chart, chart4: Chart, values: Values) -> None:
    """Leave running the hooks to tests/e2e."""
    assert objects(chart4.template(values)) == objects(chart.template(values))


@BOTH
@pytest.mark.parametrize("version", ["chart", "chart4"])
def test_kustomize_applies_the_objects_of_helm_without_hooks(
    request: pytest.FixtureRequest, kustomize: Path, version: str, values: Values, tmp_path: Path
) -> None:
    """Use either version of helm. kustomize requests hooks by default."""
    chart: Chart = request.getfixturevalue(version)
    assert objects(chart.kustomize(kustomize, tmp_path, values)) == objects(chart.template(values))
