"""One cluster whose network is Cilium, with the chart installed, for all tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cluster.cilium_mode import HOST_ROUTING, HOST_ROUTING_TC, TUNNEL, Mode
from cluster.cluster import Cluster, find
from cluster.layout import layout
from cluster.lifecycle import down, up
from cluster.shape import CILIUM_NODES
from tests.e2e.image import layout_image, operator_image
from tests.e2e.release import Release
from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.laboratory import Laboratory, laboratory

MODES = (HOST_ROUTING, HOST_ROUTING_TC, TUNNEL)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide a cluster: a running one, which stays up, or a new one, which ends after the tests."""
    place = layout().beside("cilium")
    was_up = find(place) is not None
    images = [operator_image(), layout_image()]
    yield up(lambda text: print(text, file=sys.stderr, flush=True), place, nodes=CILIUM_NODES, images=images)
    if not was_up:
        down(place)


@pytest.fixture(scope="session")
def data_plane(cluster: Cluster) -> DataPlane:
    """Cilium on its nodes, running."""
    made = DataPlane(cluster)
    made.install(HOST_ROUTING)
    return made


@pytest.fixture(scope="session")
def release(data_plane: DataPlane) -> Iterator[Release]:
    """Provide the chart, installed as a user would install it, and uninstalled after the tests."""
    installed = Release(data_plane.cluster.kubectl)
    installed.uninstall()  # what a killed run has left
    installed.install()
    yield installed
    installed.uninstall()


@pytest.fixture(scope="session", params=MODES, ids=lambda mode: mode.name)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Provide a mode of Cilium. Tests of one mode run one after another."""
    mode: Mode = request.param
    return mode


@pytest.fixture(scope="session")
def pods(data_plane: DataPlane, release: Release, mode: Mode) -> Iterator[Laboratory]:
    """Provide pods that were made in the mode."""
    data_plane.run(mode)
    with laboratory(release, f"made-in-{mode.name}") as made:
        yield made


@pytest.fixture
def lab(data_plane: DataPlane, mode: Mode, pods: Laboratory) -> Laboratory:
    """Provide the same, while Cilium runs in the mode. A test may have changed it."""
    data_plane.run(mode)
    return pods
