"""The text that names programs of other components."""

from __future__ import annotations

from tokenbucket.core.planning.attachment import Hook, Mechanism
from tokenbucket.core.planning.foreign import ForeignProgram, list_programs, most_frequent


def test_the_most_frequent_program_comes_first_and_once() -> None:
    """Name a program once that a data plane attaches to the interface of each pod."""
    many = [ForeignProgram(f"lxc{n}", Hook.INGRESS, Mechanism.TCX, "from_pod", n) for n in range(5)]
    few = [ForeignProgram("a0", Hook.INGRESS, Mechanism.TCX, f"to_host{n}", 90 + n, 7) for n in range(4)]
    assert list_programs([*few, *many]) == (
        "from_pod (tcx) at the ingress of 5 interfaces, to_host0 (tcx, program 90, link 7) at a0 ingress, "
        "to_host1 (tcx, program 91, link 7) at a0 ingress and 2 more"
    )


def test_programs_without_a_name_are_distinguished_by_mechanism() -> None:
    """Expect both at one interface."""
    found = [ForeignProgram("a0", Hook.INGRESS, each) for each in (Mechanism.TCX, Mechanism.CLSACT)]
    assert list_programs(found).count("a program without a name") == 2


def test_a_report_has_the_most_frequent_programs_and_leaves_out_others() -> None:
    """List at most 16."""
    many = [ForeignProgram(f"lxc{n}", Hook.INGRESS, Mechanism.TCX, "from_pod", n) for n in range(5)]
    few = [ForeignProgram("a0", Hook.EGRESS, Mechanism.CLSACT, f"to_host{n}", 90 + n) for n in range(20)]
    first, *others = most_frequent([*few, *many])
    assert first == "from_pod (tcx) at the ingress of 5 interfaces"
    assert len(others) == 15
