"""helm, built from its Go module where the cache lacks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import binaries
from tests.chart.chart import EVERYTHING, Chart, Manifests

BUILD_TIMEOUT_S = 900
"""The first test of a machine waits until helm is built."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S))


@pytest.fixture(scope="session")
def chart() -> Chart:
    return Chart(binaries.helm() / "helm")


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
