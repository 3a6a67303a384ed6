"""The status after Cilium or tokenbucket have loaded their programs anew, under traffic."""

from __future__ import annotations

import pytest

from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.disturbances import DISTURBANCES, DROP, flows_during
from tests.e2e_cilium.laboratory import Laboratory
from tests.e2e_cilium.verdict import wrong_statuses


@pytest.mark.parametrize("name", DISTURBANCES)
def test_the_status_is_true_after_a_disturbance(data_plane: DataPlane, lab: Laboratory, name: str) -> None:
    """Regenerations of endpoints, and restarts."""
    flows_during(lambda: DISTURBANCES[name](data_plane, lab), lab)
    assert wrong_statuses(lab, DROP) == {}
