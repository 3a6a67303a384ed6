"""Events that the kernel sends to the monitor, about the node and about the namespaces of pods."""

from __future__ import annotations

import select
import socket
import subprocess
import sys

import pytest

from tests.netns.lab import ip, tc
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.events import TRAFFIC_CONTROL, Event, EventKind, parse
from tokenbucket.netlink.filters import HANDLE, PRIORITY, Filters
from tokenbucket.netlink.links import find_link, read_link
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.netlink.namespaces import inside, namespace_at
from tokenbucket.netlink.processes import process_name


def kinds(monitor, ifindex: int) -> set[EventKind]:
    return {event.kind for event in monitor.read() if event.ifindex == ifindex and event.nsid is None}


@pytest.fixture
def pod(lab):
    return lab.pod("a", ["10.1.0.2/24"])


def test_new_and_deleted_veth_are_events(lab, monitor):
    """The agent limits a new pod as soon as its interface appears."""
    pod = lab.pod("a")
    index = pod.ifindex
    assert EventKind.NEW_LINK in kinds(monitor, index)
    lab.delete(pod)
    assert EventKind.DEL_LINK in kinds(monitor, index)


@pytest.mark.parametrize("address", ["10.1.0.2/24", "fd01::2/64"])
def test_address_inside_a_pod_is_an_event_with_its_namespace(lab, monitor, connection, address):
    """The kernel notifies the node, although the change is in another namespace."""
    pod = lab.pod("a")
    nsid = read_link(connection, pod.ifindex).nsid
    monitor.read()
    pod.add_address(address)
    seen = set()
    while nsid not in seen and select.select([monitor], [], [], 10)[0]:
        seen |= {event.nsid for event in monitor.read() if event.kind is EventKind.NEW_ADDRESS}
    assert nsid is not None
    assert nsid in seen


def test_the_monitor_does_not_open_without_net_broadcast():
    """The agent needs NET_BROADCAST, so that it does not miss changes inside pods."""
    command = ["setpriv", "--bounding-set=-net_broadcast", "--inh-caps=-net_broadcast", "--", sys.executable]
    script = "from tokenbucket.netlink.monitor import Monitor; Monitor()"
    done = subprocess.run([*command, "-c", script], capture_output=True, text=True)
    assert "KernelError: watch rtnetlink: Operation not permitted" in done.stderr


def test_address_of_the_node_has_no_namespace(lab, monitor):
    """This distinguishes an address of the node from an address of a pod."""
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    events = [event for event in monitor.read() if event.kind is EventKind.NEW_ADDRESS]
    assert [(event.nsid, event.ifindex) for event in events] == [(None, 1)]


@pytest.mark.parametrize("hook", list(Hook))
def test_removal_of_a_tokenbucket_filter_is_an_event(monitor, pod, filters, pass_program, hook):
    """The agent restores the filter after any removal."""
    filters.attach(pod.ifindex, hook, pass_program, 3)
    index = pod.ifindex
    monitor.read()
    tc(
        "filter",
        "del",
        "dev",
        pod.veth,
        hook,
        "prio",
        str(PRIORITY),
        "handle",
        str(HANDLE),
        "protocol",
        "all",
        "bpf",
    )
    (event,) = [event for event in monitor.read() if event.kind is EventKind.DEL_FILTER]
    assert (event.ifindex, event.hook, event.handle, event.priority) == (index, hook, HANDLE, PRIORITY)
    assert event.removes_ours


def test_removal_of_all_filters_concerns_tokenbucket(monitor, pod, filters, pass_program):
    """The event contains the priority but no handle."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    monitor.read()
    tc("filter", "del", "dev", pod.veth, "egress")
    assert [event.hook for event in monitor.read() if event.removes_ours] == [Hook.EGRESS]


def test_removal_of_clsact_concerns_tokenbucket(monitor, pod, filters, pass_program):
    """The kernel sends no events for the filters in a removed clsact."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    monitor.read()
    tc("qdisc", "del", "dev", pod.veth, "clsact")
    events = [event for event in monitor.read() if event.removes_ours]
    assert [(event.kind, event.ifindex) for event in events] == [(EventKind.DEL_QDISC, pod.ifindex)]


def test_removal_of_other_filters_and_qdiscs_does_not_concern_tokenbucket(
    monitor, pod, filters, pass_program
):
    """Only a process that removes tokenbucket's filters is reported as a contender."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    add = ("filter", "add", "dev", pod.veth, "egress", "protocol", "all")
    tc(*add, "prio", "1", "handle", "1", "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    tc(*add, "prio", "2", "handle", "1", "bpf", "direct-action", "bytecode", "1,6 0 0 0")
    tc("filter", "del", "dev", pod.veth, "egress", "prio", "1", "handle", "1", "protocol", "all", "bpf")
    tc("filter", "del", "dev", pod.veth, "egress", "prio", "2")
    tc("qdisc", "add", "dev", pod.veth, "root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "10ms")
    tc("qdisc", "del", "dev", pod.veth, "root")
    events = monitor.read()
    assert {EventKind.DEL_FILTER, EventKind.DEL_QDISC} <= {event.kind for event in events}
    assert not any(event.removes_ours for event in events)


def test_leaving_a_bridge_is_not_the_end_of_an_interface(lab, monitor):
    """The kernel's message differs from a deletion only in its family."""
    pod = lab.pod("a", ["10.1.0.2/24"], "bridge")
    index = pod.ifindex
    monitor.read()
    ip("link", "set", pod.veth, "nomaster")
    assert EventKind.DEL_LINK not in kinds(monitor, index)


def test_own_changes_can_be_left_out(lab, pod, filters, connection, pass_program):
    """The agent knows its own changes. Their events would make it read everything twice."""
    monitor = Monitor(ignore={connection.portid})
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    own = kinds(monitor, pod.ifindex)
    tc("filter", "del", "dev", pod.veth, "egress")
    others = kinds(monitor, pod.ifindex)
    monitor.close()
    assert own & TRAFFIC_CONTROL == set()
    assert EventKind.DEL_FILTER in others


def test_own_changes_inside_a_pod_can_be_left_out(lab, monitor, pod, connection, pass_program):
    """Discard them only while their socket is open: then a process of the pod may have the same port."""
    nsid = read_link(connection, pod.ifindex).nsid

    def attach(slot: int) -> None:
        Filters(inside_pod).attach(eth0, Hook.EGRESS, pass_program, slot)

    def changes() -> set[EventKind]:
        return {event.kind for event in monitor.read() if event.nsid == nsid}

    with inside(namespace_at(pod.path)) as inside_pod:
        eth0 = find_link(inside_pod, "eth0").ifindex
        attach(1)
        with monitor.ignoring(nsid, inside_pod.portid):
            attach(2)
            pod.add_address("10.1.0.3/24")
        assert monitor.has_read_early
        early = changes()
        assert EventKind.NEW_FILTER in early, "before the context"
        assert EventKind.NEW_ADDRESS in early, "by another process"
        with monitor.ignoring(nsid, inside_pod.portid):
            attach(3)
        assert changes() == set()
        attach(4)
        assert EventKind.NEW_FILTER in changes(), "after the context"


def test_the_end_of_a_namespace_number_is_an_event(lab, monitor, pod, connection):
    """The kernel may give the number to another namespace."""
    nsid = read_link(connection, pod.ifindex).nsid
    monitor.read()
    lab.delete(pod)
    ended = []
    while nsid not in ended:  # the kernel removes a namespace asynchronously
        assert select.select([monitor], [], [], 30)[0]
        ended += [event.nsid for event in monitor.read() if event.kind is EventKind.DEL_NSID]


def test_reading_without_events_returns_at_once(monitor):
    """The agent reads events each time it wakes up."""
    while monitor.read():  # pending events of the namespaces of earlier tests
        pass


def test_lost_events_are_reported(lab, monitor):
    """If the buffer of the socket overflows, the lost events are unknown."""
    monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(20):
        ip("address", "add", f"192.0.2.{number}/32", "dev", "lo")
    assert Event(EventKind.OVERFLOW) in monitor.read()
    ip("address", "add", "192.0.2.99/32", "dev", "lo")
    assert EventKind.NEW_ADDRESS in {event.kind for event in monitor.read()}


def test_a_truncated_datagram_is_not_an_error():
    """The kernel sends no such datagram, but a parser must accept any bytes."""
    message = bytes([32, 0, 0, 0, 16, 0]) + bytes(26)
    assert list(parse(message, None)) == [Event(EventKind.NEW_LINK)]
    for length in range(len(message)):
        assert list(parse(message[:length], None)) == []


def test_process_behind_a_change_is_named(monitor, pod, filters, pass_program):
    """An administrator needs the process that keeps removing the filter."""
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    monitor.read()
    script = (
        "import ctypes, sys; from pyroute2 import IPRoute; ctypes.CDLL(None).prctl(15, b'contender');"
        f"IPRoute().tc('del', 'clsact', {pod.ifindex}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as contender:
        contender.stdout.readline()
        (event,) = [event for event in monitor.read() if event.removes_ours]
        assert process_name(event.portid) == "contender"
        contender.stdin.close()
    assert process_name(event.portid) is None


@pytest.mark.parametrize("portid", [0, 0xFFFFF123, 0x3FFFFF])
def test_process_that_cannot_be_identified_has_no_name(portid):
    """The sender is the kernel, a number that the kernel assigned, or an ended process."""
    assert process_name(portid) is None


def test_connections_of_one_process_have_their_own_portids():
    """The number identifies the connection that caused an event."""
    with connect() as one, connect() as two:
        assert one.portid != two.portid
        assert 0 not in {one.portid, two.portid}
