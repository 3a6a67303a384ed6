"""Our filter on a hook, beside those of others."""

from __future__ import annotations

import json
import os

import pytest

from tests.netns import bpf_program
from tests.netns.lab import ip, tc
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.filters import HANDLE, MAX_SLOT, LinkFilters

BOTH = pytest.mark.parametrize("hook", list(Hook))
DROP_ALL = ("bpf", "direct-action", "bytecode", "1,6 0 0 2")
LET_PASS = ("bpf", "direct-action", "bytecode", "1,6 0 0 4294967295")


@pytest.fixture
def pod(lab):
    return lab.pod("a", ["10.1.0.2/24"])


def foreign(pod, hook, priority, *what, handle=1):
    tc(
        "filter",
        "add",
        "dev",
        pod.veth,
        hook,
        "prio",
        str(priority),
        "handle",
        str(handle),
        "protocol",
        "all",
        *what,
    )


def shown(pod, hook):
    """What tc shows of real filters: their handles in order."""
    listed = json.loads(tc("-json", "filter", "show", "dev", pod.veth, hook))
    return [each["options"]["handle"] for each in listed if "handle" in each.get("options", {})]


@BOTH
def test_attached_filter_is_read_back(filters, pod, pass_program, hook):
    """What is in the kernel is the only record of which slot an interface uses."""
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    (ours,) = filters.read(pod.ifindex).ours
    assert (ours.ifindex, ours.hook, ours.slot) == (pod.ifindex, hook, 7)
    assert ours.prog_id > 0


@BOTH
def test_attaching_twice_leaves_one_filter(filters, pod, pass_program, hook):
    """A pass is repeated at any time."""
    for _ in range(3):
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    assert shown(pod, hook) == [hex(HANDLE)]


@BOTH
def test_replacing_changes_slot_and_program_in_place(filters, pod, pass_program, drop_program, hook):
    """A new build takes over without a moment in which nothing is limited."""
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    (before,) = filters.read(pod.ifindex).ours
    filters.attach(pod.ifindex, hook, drop_program, slot=8)
    (after,) = filters.read(pod.ifindex).ours
    assert after.slot == 8
    assert after.prog_id != before.prog_id
    assert shown(pod, hook) == [hex(HANDLE)]


@pytest.mark.parametrize("slot", [0, 1, 4095, MAX_SLOT])
def test_program_sees_its_slot(filters, pod, slot):
    """One program serves all hooks, since the filter tells it the slot."""
    program = bpf_program.slot_program(slot)
    filters.attach(pod.ifindex, Hook.EGRESS, program, slot ^ 2)
    passed = pod.answers()
    filters.attach(pod.ifindex, Hook.EGRESS, program, slot)
    os.close(program)
    assert (passed, pod.answers()) == (True, False)


@pytest.mark.parametrize("slot", [-1, MAX_SLOT + 1])
def test_slot_that_does_not_fit_is_refused(filters, pod, pass_program, slot):
    """The program would see another slot."""
    with pytest.raises(ValueError, match="slot"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot)


@BOTH
def test_foreign_filters_survive_detach(filters, pod, pass_program, hook):
    """Only what is ours is removed, whatever else is on the hook."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, hook, 1, *LET_PASS)
    foreign(pod, hook, 2, *LET_PASS)
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    filters.detach(pod.ifindex, hook)
    filters.remove_empty_clsact(pod.ifindex)
    assert filters.read(pod.ifindex).ours == ()
    assert shown(pod, hook) == ["0x1", "0x1"]


@BOTH
def test_filter_of_our_handle_and_another_name_is_foreign(filters, pod, pass_program, hook):
    """A handle alone does not make a filter ours: it is neither replaced nor removed."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, hook, 1, *LET_PASS, handle=HANDLE)
    filters.detach(pod.ifindex, hook)
    with pytest.raises(UnsupportedError, match="bpf filter"):
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    assert filters.read(pod.ifindex).ours == ()
    assert shown(pod, hook) == [hex(HANDLE)]


def test_detach_leaves_clsact(filters, connection, pod, pass_program):
    """Nothing tells who added it, so it goes only when all of ours leaves and it is empty."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    assert "clsact" in tc("qdisc", "show", "dev", pod.veth)
    filters.detach(pod.ifindex, Hook.EGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert "clsact" not in tc("qdisc", "show", "dev", pod.veth)


def test_clsact_with_our_other_filter_stays(filters, pod, pass_program):
    """Leaving one hook must not lift the limit on the other."""
    for hook in Hook:
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.INGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert [each.hook for each in filters.read(pod.ifindex).ours] == [Hook.EGRESS]


@BOTH
def test_detach_of_nothing_is_fine(filters, pod, hook):
    """Without a filter, without clsact, and without an interface."""
    filters.detach(pod.ifindex, hook)
    filters.remove_empty_clsact(pod.ifindex)
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    filters.detach(pod.ifindex, hook)
    filters.detach(999_999, hook)
    filters.remove_empty_clsact(999_999)


def test_ours_runs_before_others(filters, pod, drop_program):
    """What ours drops, nobody else sees."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, Hook.EGRESS, 1, "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    foreign(pod, Hook.EGRESS, 2, "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    assert pod.answers()
    filters.attach(pod.ifindex, Hook.EGRESS, drop_program, slot=7)
    assert not pod.answers()


def test_others_run_after_ours(filters, pod, pass_program):
    """A packet that conforms goes on to the filters behind."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert pod.answers()
    foreign(pod, Hook.EGRESS, 2, *DROP_ALL)
    assert not pod.answers()


@BOTH
def test_other_kind_at_our_priority_is_named(filters, pod, pass_program, hook):
    """A priority holds one kind of filter, so ours cannot be had; whose it is helps to resolve it."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc(
        "filter",
        "add",
        "dev",
        pod.veth,
        hook,
        "prio",
        "1",
        "protocol",
        "all",
        "u32",
        "match",
        "u32",
        "0",
        "0",
        "classid",
        "1:1",
    )
    with pytest.raises(UnsupportedError, match=rf"{hook}: a foreign u32 filter at priority 1"):
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    assert {each.kind for each in filters.read(pod.ifindex).foreign} == {"u32"}


def test_other_protocol_at_our_priority_is_named(filters, pod, pass_program):
    """A priority holds one protocol, too."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", "prio", "1", "protocol", "ip", *LET_PASS)
    with pytest.raises(UnsupportedError, match="bpf filter"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)


def test_ingress_qdisc_serves_ingress_and_refuses_egress(filters, pod, pass_program):
    """It takes the place of clsact, and would put a filter for egress on ingress without a word."""
    tc("qdisc", "add", "dev", pod.veth, "ingress")
    filters.attach(pod.ifindex, Hook.INGRESS, pass_program, slot=7)
    with pytest.raises(UnsupportedError, match="ingress qdisc"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=8)
    assert [(each.hook, each.slot) for each in filters.read(pod.ifindex).ours] == [(Hook.INGRESS, 7)]
    filters.detach(pod.ifindex, Hook.INGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert "ingress" in tc("qdisc", "show", "dev", pod.veth)


def test_detach_from_egress_spares_an_ingress_qdiscs_filter(filters, pod, pass_program):
    """Asked for its egress, the ingress qdisc would give up the filter of its ingress."""
    tc("qdisc", "add", "dev", pod.veth, "ingress")
    filters.attach(pod.ifindex, Hook.INGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    assert [each.hook for each in filters.read(pod.ifindex).ours] == [Hook.INGRESS]


def test_other_root_qdisc_is_left_alone(filters, pod, pass_program):
    """Clsact stands beside whatever shapes the interface."""
    tc("qdisc", "add", "dev", pod.veth, "root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "10ms")
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert [each["kind"] for each in json.loads(tc("-json", "qdisc", "show", "dev", pod.veth))] == ["tbf"]


def test_filter_in_another_chain_is_not_in_the_way(filters, pod, pass_program):
    """It is reached only from another filter."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", "chain", "5", "prio", "1", "protocol", "ip", *LET_PASS)
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert filters.read(pod.ifindex).foreign == ()


def test_interface_that_is_gone(filters, lab, pod, pass_program):
    """It has no filters, and attaching says which errno."""
    index = pod.ifindex
    lab.delete(pod)
    assert filters.read(index) == LinkFilters()
    with pytest.raises(KernelError, match=f"interface {index}.*ENODEV"):
        filters.attach(index, Hook.EGRESS, pass_program, slot=7)


def test_descriptor_that_is_no_program(filters, pod):
    """The kernel's refusal comes through with the operation and the object."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(KernelError, match=r"replace-filter bpf interface \d+ egress: .*EINVAL"):
            filters.attach(pod.ifindex, Hook.EGRESS, descriptor, slot=7)
    finally:
        os.close(descriptor)


def test_bridge_port_can_be_limited(filters, lab, pass_program):
    """A port's hooks come before the bridge."""
    pod = lab.pod("b", ["10.2.0.2/24"], style="bridge")
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert pod.answers()
    assert ip("-json", "link", "show", "dev", pod.veth).count("cni0") == 1
