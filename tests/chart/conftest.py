"""Fixtures of the chart rung: helm, and the chart as helm renders it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import binaries
from tests.chart.chart import EVERYTHING, Chart, Manifests
from tests.chart.cluster_stub import cluster_stub


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    with cluster_stub() as api:
        yield Chart(binaries.helm() / "helm", api)


@pytest.fixture(scope="session")
def untt() -> Path:
    return binaries.helm_unittest() / "untt"


@pytest.fixture(scope="session")
def default(chart: Chart) -> Manifests:
    """The chart with its own values."""
    return chart.render()


@pytest.fixture(scope="session")
def full(chart: Chart) -> Manifests:
    """The chart with everything switched on."""
    return chart.render(EVERYTHING)
