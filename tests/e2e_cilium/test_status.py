"""The status on a cluster whose network is Cilium: a limit is enforced exactly if the status reports it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.cilium_mode import HOST_ROUTING, HOST_ROUTING_TC, TUNNEL
from tests.e2e.release import Release
from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.laboratory import Laboratory, laboratory
from tests.e2e_cilium.verdict import wrong_statuses


def test_the_status_of_each_limit_is_true(lab: Laboratory) -> None:
    """Create the pods in the mode."""
    assert wrong_statuses(lab) == {}


@pytest.fixture(scope="module")
def old_pods(data_plane: DataPlane, release: Release) -> Iterator[Laboratory]:
    """Provide pods that live through changes of the mode."""
    data_plane.run(HOST_ROUTING)
    with laboratory(release, "old-pods") as made:
        yield made


def test_the_status_is_true_after_a_change_of_the_mode(data_plane: DataPlane, old_pods: Laboratory) -> None:
    """Let Cilium attach its programs to running pods, before or after those of tokenbucket."""
    for mode in (HOST_ROUTING_TC, TUNNEL, HOST_ROUTING):
        data_plane.run(mode)
        assert wrong_statuses(old_pods) == {}, mode.name
