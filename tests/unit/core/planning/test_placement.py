"""Where a pod's limit may be, when its address is found somewhere."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.placement import Declarations, Placements

WEB, OTHER = PodId("shop", "web"), PodId("shop", "other")
HERE, THERE = 1, 2


def declared(*addresses: str, ended: bool = False) -> list[Pod]:
    return [Pod(WEB, {}, frozenset(map(ip_address, addresses)), ended=ended)]


def homes(*limited: tuple[PodId, int]) -> Placements:
    found = Placements()
    for pod, nsid in limited:
        found.add(pod, nsid)
    return found


@pytest.mark.parametrize(
    ("limited", "nsid", "admitted"),
    [
        ([], HERE, True),
        ([(WEB, HERE)], HERE, True),
        ([(WEB, HERE)], THERE, False),
        ([(OTHER, HERE)], HERE, False),
        ([(OTHER, HERE)], THERE, True),
        ([(WEB, HERE), (OTHER, THERE)], THERE, False),
        ([(WEB, HERE), (WEB, THERE)], THERE, True),
    ],
)
def test_a_pod_is_admitted_at_home_or_where_nobody_is(
    limited: list[tuple[PodId, int]], nsid: int, admitted: object
) -> None:
    """Also where the other namespace's pod has no limit: who takes an address need have none."""
    assert homes(*limited).admit(WEB, nsid) is admitted


@pytest.mark.parametrize(
    ("before", "after", "unchanged"),
    [
        (["10.0.0.1"], ["10.0.0.1"], True),
        (["10.0.0.1"], ["10.0.0.2"], False),
        (["10.0.0.1"], ["10.0.0.1", "fd00::1"], True),
        (["10.0.0.1", "fd00::1"], ["fd00::1"], True),
        (["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"], False),
    ],
)
def test_only_other_addresses_are_a_new_declaration(
    before: list[str], after: list[str], unchanged: object
) -> None:
    """One source may know more of a pod's addresses than the next."""
    declarations = Declarations()
    declarations.passed(declared(*before), set())
    assert (WEB in declarations.unchanged(declared(*after))) is unchanged


def test_to_an_agent_that_has_just_started_nothing_is_new() -> None:
    """It cannot tell a mistake that was mended from an address that was given away."""
    assert Declarations().unchanged(declared("10.0.0.1")) == {WEB}


def test_a_new_declaration_is_old_after_one_pass() -> None:
    """From then on the limit is at home where it was found."""
    declarations = Declarations()
    for address in ("10.0.0.1", "10.0.0.2"):
        declarations.passed(declared(address), set())
    assert declarations.unchanged(declared("10.0.0.2")) == {WEB}


def test_a_new_declaration_is_new_until_its_limit_is_placed() -> None:
    """Where filters could be neither attached nor removed, the next pass is to move it all the same."""
    declarations = Declarations()
    declarations.passed(declared("10.0.0.1"), set())
    declarations.passed(declared("10.0.0.2"), {WEB})
    assert declarations.unchanged(declared("10.0.0.2")) == set()


def test_a_pod_that_has_ended_is_nowhere_at_home() -> None:
    """Its interface may be another's at once."""
    declarations = Declarations()
    declarations.passed(declared("10.0.0.1"), set())
    assert declarations.unchanged(declared("10.0.0.1", ended=True)) == set()
