"""The permitted places of a limit after the address of its pod was found somewhere."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.planning.namespace_moves import Declarations, Placements

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
def test_a_pod_is_admitted_in_its_namespace_or_in_one_without_a_pod(
    limited: list[tuple[PodId, int]], nsid: int, admitted: object
) -> None:
    """Admit no pod in the namespace of an unlimited pod, which can take an address too."""
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
def test_only_a_disjoint_set_of_addresses_is_a_new_declaration(
    before: list[str], after: list[str], unchanged: object
) -> None:
    """Accept that one source knows more addresses of a pod than the next."""
    declarations = Declarations()
    declarations.record(declared(*before), set())
    assert (WEB in declarations.unchanged(declared(*after))) is unchanged


def test_a_restarted_agent_sees_no_new_declaration() -> None:
    """Treat a corrected mistake like an address that was given away, because both look the same."""
    assert Declarations().unchanged(declared("10.0.0.1")) == {WEB}


def test_a_declaration_is_new_for_one_run() -> None:
    """Keep the limit in the namespace where it was found."""
    declarations = Declarations()
    for address in ("10.0.0.1", "10.0.0.2"):
        declarations.record(declared(address), set())
    assert declarations.unchanged(declared("10.0.0.2")) == {WEB}


def test_a_new_declaration_is_new_until_its_limit_is_placed() -> None:
    """Move the limit in the next run if filters could be neither attached nor removed."""
    declarations = Declarations()
    declarations.record(declared("10.0.0.1"), set())
    declarations.record(declared("10.0.0.2"), {WEB})
    assert declarations.unchanged(declared("10.0.0.2")) == set()


def test_a_pod_that_has_ended_has_no_namespace() -> None:
    """Leave its interface to another pod at once."""
    declarations = Declarations()
    declarations.record(declared("10.0.0.1"), set())
    assert declarations.unchanged(declared("10.0.0.1", ended=True)) == set()
