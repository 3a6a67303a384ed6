"""Fixtures of the chart rung: helm, and the chart as helm renders it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import binaries
from tests.chart.chart import EVERYTHING, Chart, Manifests


@pytest.fixture(scope="session")
def chart() -> Chart:
    return Chart(binaries.helm() / "helm")


@pytest.fixture(scope="session")
def chart4() -> Chart:
    return Chart(binaries.helm4() / "helm")


@pytest.fixture(scope="session")
def kustomize() -> Path:
    return binaries.kustomize() / "kustomize"


@pytest.fixture(scope="session")
def untt() -> Path:
    return binaries.helm_unittest() / "untt"


@pytest.fixture(scope="session")
def default(chart: Chart) -> Manifests:
    """Return the chart with its default values."""
    return chart.render()


@pytest.fixture(scope="session")
def full(chart: Chart) -> Manifests:
    """Return the chart with everything turned on."""
    return chart.render(EVERYTHING)
