"""Limits and their status while Cilium or tokenbucket load their programs again, under traffic."""

from __future__ import annotations

import pytest

from tests.e2e_cilium.data_plane import DataPlane
from tests.e2e_cilium.disturbances import DISTURBANCES, DROP, flows_during
from tests.e2e_cilium.laboratory import Laboratory
from tests.e2e_cilium.limits import FAR
from tests.e2e_cilium.verdict import wrong_statuses


@pytest.mark.parametrize("name", DISTURBANCES)
def test_limits_hold_during_a_disturbance_and_the_status_stays_true(
    data_plane: DataPlane, lab: Laboratory, name: str
) -> None:
    """Regenerate endpoints and restart agents. The limit is never exceeded."""
    flows = flows_during(lambda: DISTURBANCES[name](data_plane, lab), lab)
    assert [excess for limit, flow in flows if (excess := flow.exceeds(limit.most(FAR)))] == []
    assert wrong_statuses(lab, DROP) == {}
