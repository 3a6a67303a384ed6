"""The filter of tokenbucket on a hook, beside filters of other programs."""

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
    """Return the handles of the filters that tc shows, in order."""
    listed = json.loads(tc("-json", "filter", "show", "dev", pod.veth, hook))
    return [each["options"]["handle"] for each in listed if "handle" in each.get("options", {})]


@BOTH
def test_attached_filter_is_read_back(filters, pod, pass_program, hook):
    """The kernel has the only record of the slot that an interface uses."""
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    (ours,) = filters.read(pod.ifindex).ours
    assert (ours.ifindex, ours.hook, ours.slot) == (pod.ifindex, hook, 7)
    assert ours.prog_id > 0


@BOTH
def test_attaching_twice_leaves_one_filter(filters, pod, pass_program, hook):
    """The agent may repeat a reconcile run at any time."""
    for _ in range(3):
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    assert shown(pod, hook) == [hex(HANDLE)]


@BOTH
def test_replacing_changes_slot_and_program_in_place(filters, pod, pass_program, drop_program, hook):
    """A new build replaces the program without a gap in the limit."""
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    (before,) = filters.read(pod.ifindex).ours
    filters.attach(pod.ifindex, hook, drop_program, slot=8)
    (after,) = filters.read(pod.ifindex).ours
    assert after.slot == 8
    assert after.prog_id != before.prog_id
    assert shown(pod, hook) == [hex(HANDLE)]


@pytest.mark.parametrize("slot", [0, 1, 4095, MAX_SLOT])
def test_program_sees_its_slot(filters, pod, slot):
    """One program serves all hooks, because the filter passes the slot."""
    program = bpf_program.slot_program(slot)
    filters.attach(pod.ifindex, Hook.EGRESS, program, slot ^ 2)
    passed = pod.answers()
    filters.attach(pod.ifindex, Hook.EGRESS, program, slot)
    os.close(program)
    assert (passed, pod.answers()) == (True, False)


@pytest.mark.parametrize("slot", [-1, MAX_SLOT + 1])
def test_a_slot_number_out_of_range_is_rejected(filters, pod, pass_program, slot):
    """The program would read another slot."""
    with pytest.raises(ValueError, match="slot"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot)


@BOTH
def test_foreign_filters_survive_detach(filters, pod, pass_program, hook):
    """Detach removes only filters of tokenbucket."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, hook, 1, *LET_PASS)
    foreign(pod, hook, 2, *LET_PASS)
    filters.attach(pod.ifindex, hook, pass_program, slot=7)
    filters.detach(pod.ifindex, hook)
    filters.remove_empty_clsact(pod.ifindex)
    assert filters.read(pod.ifindex).ours == ()
    assert shown(pod, hook) == ["0x1", "0x1"]


@BOTH
def test_a_filter_with_tokenbuckets_handle_and_another_name_is_foreign(filters, pod, pass_program, hook):
    """The handle alone does not identify a filter of tokenbucket.
    A foreign filter is neither replaced nor removed.
    """
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, hook, 1, *LET_PASS, handle=HANDLE)
    filters.detach(pod.ifindex, hook)
    with pytest.raises(UnsupportedError, match="bpf filter"):
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    assert filters.read(pod.ifindex).ours == ()
    assert shown(pod, hook) == [hex(HANDLE)]


def test_detach_leaves_clsact(filters, connection, pod, pass_program):
    """The kernel does not record the owner of clsact. Only ``detach --all`` removes an empty clsact."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    assert "clsact" in tc("qdisc", "show", "dev", pod.veth)
    filters.detach(pod.ifindex, Hook.EGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert "clsact" not in tc("qdisc", "show", "dev", pod.veth)


def test_clsact_stays_while_the_other_hook_has_a_filter(filters, pod, pass_program):
    """Detaching from one hook must not remove the limit on the other hook."""
    for hook in Hook:
        filters.attach(pod.ifindex, hook, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.INGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert [each.hook for each in filters.read(pod.ifindex).ours] == [Hook.EGRESS]


@BOTH
def test_detach_without_a_filter_succeeds(filters, pod, hook):
    """Detach succeeds without a filter, without clsact, and without an interface."""
    filters.detach(pod.ifindex, hook)
    filters.remove_empty_clsact(pod.ifindex)
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    filters.detach(pod.ifindex, hook)
    filters.detach(999_999, hook)
    filters.remove_empty_clsact(999_999)


def test_the_filter_runs_before_others(filters, pod, drop_program):
    """Packets that tokenbucket drops reach no other filter."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    foreign(pod, Hook.EGRESS, 1, "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    foreign(pod, Hook.EGRESS, 2, "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    assert pod.answers()
    filters.attach(pod.ifindex, Hook.EGRESS, drop_program, slot=7)
    assert not pod.answers()


def test_other_filters_see_conforming_packets(filters, pod, pass_program):
    """A conforming packet continues to the next filters."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert pod.answers()
    foreign(pod, Hook.EGRESS, 2, *DROP_ALL)
    assert not pod.answers()


@BOTH
def test_another_kind_at_the_priority_is_named(filters, pod, pass_program, hook):
    """A priority accepts one kind of filter, so the attachment fails. The error names the kind."""
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


def test_another_protocol_at_the_priority_is_named(filters, pod, pass_program):
    """A priority accepts one protocol."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", "prio", "1", "protocol", "ip", *LET_PASS)
    with pytest.raises(UnsupportedError, match="bpf filter"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)


def test_ingress_qdisc_serves_ingress_and_rejects_egress(filters, pod, pass_program):
    """An ingress qdisc replaces clsact. It would silently attach an egress filter to ingress."""
    tc("qdisc", "add", "dev", pod.veth, "ingress")
    filters.attach(pod.ifindex, Hook.INGRESS, pass_program, slot=7)
    with pytest.raises(UnsupportedError, match="ingress qdisc"):
        filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=8)
    assert [(each.hook, each.slot) for each in filters.read(pod.ifindex).ours] == [(Hook.INGRESS, 7)]
    filters.detach(pod.ifindex, Hook.INGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert "ingress" in tc("qdisc", "show", "dev", pod.veth)


def test_detach_from_egress_spares_an_ingress_qdiscs_filter(filters, pod, pass_program):
    """If asked for egress, the ingress qdisc would remove the filter of its ingress."""
    tc("qdisc", "add", "dev", pod.veth, "ingress")
    filters.attach(pod.ifindex, Hook.INGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    assert [each.hook for each in filters.read(pod.ifindex).ours] == [Hook.INGRESS]


def test_another_root_qdisc_stays(filters, pod, pass_program):
    """Clsact does not depend on the root qdisc of the interface."""
    tc("qdisc", "add", "dev", pod.veth, "root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "10ms")
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    filters.detach(pod.ifindex, Hook.EGRESS)
    filters.remove_empty_clsact(pod.ifindex)
    assert [each["kind"] for each in json.loads(tc("-json", "qdisc", "show", "dev", pod.veth))] == ["tbf"]


def test_a_filter_in_another_chain_is_no_conflict(filters, pod, pass_program):
    """Only another filter can jump to that chain."""
    tc("qdisc", "add", "dev", pod.veth, "clsact")
    tc("filter", "add", "dev", pod.veth, "egress", "chain", "5", "prio", "1", "protocol", "ip", *LET_PASS)
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert filters.read(pod.ifindex).foreign == ()


def test_an_attachment_to_a_missing_interface_fails(filters, lab, pod, pass_program):
    """The interface has no filters, and attaching raises the errno of the kernel."""
    index = pod.ifindex
    lab.delete(pod)
    assert filters.read(index) == LinkFilters()
    with pytest.raises(KernelError, match=f"interface {index}.*ENODEV"):
        filters.attach(index, Hook.EGRESS, pass_program, slot=7)


def test_a_descriptor_of_no_program_is_rejected(filters, pod):
    """The error contains the kernel's errno, the operation and the object."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(KernelError, match=r"replace-filter bpf interface \d+ egress: .*EINVAL"):
            filters.attach(pod.ifindex, Hook.EGRESS, descriptor, slot=7)
    finally:
        os.close(descriptor)


def test_bridge_port_can_be_limited(filters, lab, pass_program):
    """The hooks of a port run before the bridge."""
    pod = lab.pod("b", ["10.2.0.2/24"], style="bridge")
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, slot=7)
    assert pod.answers()
    assert ip("-json", "link", "show", "dev", pod.veth).count("cni0") == 1
