"""The attachment of limits on each data plane."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.planning.attachment import AttachMode, DataPlane, End, Hook, Interface, Mechanism

IN, OUT = Direction.INGRESS, Direction.EGRESS
VETH, IN_POD = Interface(7), Interface(2, namespace=4026532000)
CLSACT, TCX = Mechanism.CLSACT, Mechanism.TCX
MODERN = DataPlane(has_tcx=True)

AT_HOST_INGRESS, AT_HOST_EGRESS = (End.HOST, Hook.INGRESS), (End.HOST, Hook.EGRESS)
IN_POD_INGRESS, IN_POD_EGRESS = (End.POD, Hook.INGRESS), (End.POD, Hook.EGRESS)


@pytest.mark.parametrize(
    ("data_plane", "at_veth", "in_pod"),
    [
        (DataPlane(), CLSACT, CLSACT),
        (DataPlane(mode=AttachMode.TCX), CLSACT, CLSACT),
        (MODERN, CLSACT, TCX),
        (replace(MODERN, is_shared=True), TCX, TCX),
        (replace(MODERN, no_clsact=frozenset({VETH})), TCX, TCX),
        (replace(MODERN, no_clsact=frozenset({Interface(8)})), CLSACT, TCX),
        (replace(MODERN, mode=AttachMode.TCX), TCX, TCX),
        (replace(MODERN, mode=AttachMode.CLSACT, is_shared=True), CLSACT, CLSACT),
        (DataPlane(is_shared=True), CLSACT, CLSACT),
    ],
    ids=str,
)
def test_tcx_replaces_clsact_if_filters_do_not_run_or_stay(
    data_plane: DataPlane, at_veth: Mechanism, in_pod: Mechanism
) -> None:
    """Require that the kernel has tcx and that the mode permits it."""
    assert (data_plane.mechanism(VETH), data_plane.mechanism(IN_POD)) == (at_veth, in_pod)


@pytest.mark.parametrize(
    ("data_plane", "direction", "drops", "delays"),
    [
        (DataPlane(), OUT, AT_HOST_INGRESS, IN_POD_EGRESS),
        (DataPlane(redirects=True, bypassed=frozenset({IN})), OUT, AT_HOST_INGRESS, IN_POD_EGRESS),
        (DataPlane(bypassed=frozenset({OUT})), OUT, IN_POD_EGRESS, IN_POD_EGRESS),
        (DataPlane(intercepts=True), OUT, IN_POD_EGRESS, IN_POD_EGRESS),
        (DataPlane(), IN, AT_HOST_EGRESS, AT_HOST_EGRESS),
        (DataPlane(redirects=True), IN, IN_POD_INGRESS, AT_HOST_EGRESS),
        (DataPlane(intercepts=True, bypassed=frozenset({OUT})), IN, AT_HOST_EGRESS, AT_HOST_EGRESS),
        (DataPlane(bypassed=frozenset({IN})), IN, IN_POD_INGRESS, IN_POD_INGRESS),
    ],
    ids=str,
)
def test_a_limit_is_attached_where_packets_pass(
    data_plane: DataPlane, direction: Direction, drops: tuple[End, Hook], delays: tuple[End, Hook]
) -> None:
    """Attach it inside the pod if programs can redirect packets past the host-side interface."""
    assert data_plane.end_and_hook(direction, delays=False, has_pod_side=True) == drops
    assert data_plane.end_and_hook(direction, delays=True, has_pod_side=True) == delays


def test_a_pod_that_cannot_be_entered_is_limited_at_its_host_side_interface() -> None:
    """Limit at least the packets of the node, which pass there."""
    data_plane = DataPlane(redirects=True, bypassed=frozenset({IN, OUT}), intercepts=True)
    assert data_plane.end_and_hook(IN, delays=False, has_pod_side=False) == AT_HOST_EGRESS
    assert data_plane.end_and_hook(OUT, delays=False, has_pod_side=False) == AT_HOST_INGRESS
