"""The view maps addresses of pods to host-side interfaces, and follows changes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns.agent import PINS, wait
from tests.netns.lab import Lab, Pod, ifindex, ip, tc
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.planning.attachment import Hook, Interface
from tokenbucket.errors import KernelError
from tokenbucket.netlink import addresses as addresses_module
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.events import ADDRESSES, Event, EventKind
from tokenbucket.netlink.filters import Filters, LinkFilters
from tokenbucket.netlink.links import read_traffic
from tokenbucket.netlink.monitor import Monitor
from tokenbucket.netlink.namespaces import numbered_namespaces
from tokenbucket.node import location as module
from tokenbucket.node import named_namespaces as named_module
from tokenbucket.node import pod_links as pod_links_module
from tokenbucket.node.location import LocationKind
from tokenbucket.node.view import View


def found(view: View, *addresses: str) -> set[int]:
    return {link.ifindex for link in view.interfaces_of(*map(ip_address, addresses)).veths}


def place(view: View, *addresses: str) -> LocationKind:
    return view.interfaces_of(*map(ip_address, addresses)).place


def follow(view: View, monitor: Monitor) -> None:
    """Read events as the agent does when the monitor is readable."""
    for event in monitor.read():
        view.mark_stale(event)
    view.refresh()


def contents(view: View) -> tuple:
    return dict(view.links), dict(view.addresses), dict(view.filters), view._addresses._owners


@pytest.mark.parametrize("style", ["ptp", "bridge"])
@pytest.mark.parametrize("addresses", [["10.1.0.2/24"], ["fd01::2/64"], ["10.1.0.2/24", "fd01::2/64"]])
def test_pod_is_found_by_each_of_its_addresses(lab, view, style, addresses):
    """The result depends neither on the interface type of the CNI plugin nor on the address family."""
    pod, other = lab.pod("a", addresses, style), lab.pod("b", ["10.2.0.2/24"], style)
    view.refresh()
    for address in addresses:
        assert found(view, address.split("/")[0]) == {pod.ifindex}
    assert found(view, *(address.split("/")[0] for address in addresses)) == {pod.ifindex}
    assert found(view, "10.2.0.2") == {other.ifindex}


def test_all_interfaces_of_a_pod_are_found(lab, view):
    """A limit is the pod's total, so it is attached to each interface."""
    pod = lab.pod("a", ["10.1.0.2/24"], interfaces=3)
    pod.add_address("10.9.0.2/24", "eth2")
    view.refresh()
    assert len(pod.ifindexes) == 3
    assert found(view, "10.1.0.2") == pod.ifindexes
    assert found(view, "10.9.0.2") == pod.ifindexes


def test_an_address_of_the_host_is_not_an_address_of_a_pod(lab, view):
    """A pod with the host's network has no interface to limit."""
    lab.pod("a", ["10.1.0.2/24"], "bridge")
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    view.refresh()
    assert place(view, "10.1.0.1") is LocationKind.HOST
    assert place(view, "192.0.2.1") is LocationKind.HOST
    assert found(view, "10.1.0.1") == set()


def test_address_of_two_pods_is_ambiguous(lab, view):
    """A guess could limit an unrelated pod."""
    lab.pod("a", ["10.1.0.2/24"], wire=False)
    for name in ("b", "c"):
        lab.add_interface(lab.pod(name, wire=False), "eth0")
        lab.pods[name].add_address("10.1.0.2/24")
    view.refresh()
    assert place(view, "10.1.0.2") is LocationKind.AMBIGUOUS


def test_addresses_of_two_pods_are_ambiguous(lab, view):
    """A pod has one namespace. Addresses in two namespaces are an error, or outdated in part."""
    lab.pod("a", ["10.1.0.2/24"])
    lab.pod("b", ["10.2.0.2/24"])
    view.refresh()
    assert place(view, "10.1.0.2", "10.2.0.2") is LocationKind.AMBIGUOUS


def test_unknown_address_beside_a_known_one_does_no_harm(lab, view):
    """The second family of a dual-stack pod may appear later."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    assert found(view, "10.1.0.2", "fd01::2") == {pod.ifindex}
    assert place(view, "fd01::2") is LocationKind.UNKNOWN


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"])
def test_addresses_that_every_namespace_has_find_nothing(lab, view, address):
    """Otherwise, each pod would be ambiguous with each other pod."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    pod.add_address("169.254.1.1/32")
    pod.add_address("fe80::1/64")
    view.refresh()
    assert place(view, address) is LocationKind.UNKNOWN


@pytest.mark.needs("macvlan")
def test_pod_without_a_veth_is_found_by_the_name_of_its_namespace(lab, monitor, view):
    """No interface of the node leads to the pod.
    After the search, the events of the pod arrive as for any other pod.
    """
    pod = lab.pod("a", wire=False)
    lab.add_upper(pod, "eth0", "10.1.0.2/24", "macvlan")
    view.refresh()
    location = view.interfaces_of(ip_address("10.1.0.2"))
    assert [link.name for link in location.pod_only] == ["eth0"]
    monitor.read()
    pod.add_address("10.1.0.3/24")
    follow(view, monitor)
    assert view.interfaces_of(ip_address("10.1.0.3")) == location


def test_names_are_read_once_for_an_unknown_address(lab, view, monkeypatch):
    """Documents of pods on other nodes must not cause a search in each run."""
    lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    looks = []
    named = named_module.named_namespaces
    monkeypatch.setattr(named_module, "named_namespaces", lambda: looks.append(1) or named())
    for _ in range(2):
        assert place(view, "10.1.0.2") is LocationKind.NAMESPACE
        assert place(view, "10.7.0.2") is LocationKind.UNKNOWN
    assert len(looks) == 1
    view.invalidate_all()
    view.refresh()
    assert place(view, "10.7.0.2") is LocationKind.UNKNOWN
    assert len(looks) == 2


def test_pods_with_veths_alone_are_not_read_at_the_start(lab, view, monkeypatch):
    """With hundreds of pods, these reads would delay the first limits."""
    lab.pod("a", ["10.1.0.2/24", "fd01::2/64"], interfaces=2)
    monkeypatch.setattr(pod_links_module, "read_links_of", None)
    view.refresh()
    assert len(found(view, "10.1.0.2")) == 2


def test_a_link_that_is_not_a_veth_is_reported_separately(lab, view):
    """The link leads to the pod, but is not the other end of the pod's interface."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    ip("link", "add", "link", "eth0", "name", "odd", "type", "macvlan", netns=pod.netns)
    ip("link", "set", "odd", "netns", str(os.getpid()), netns=pod.netns)
    view.refresh()
    whereabouts = view.interfaces_of(pod.ip)
    assert [link.ifindex for link in whereabouts.veths] == [pod.ifindex]
    assert [(link.name, link.kind) for link in whereabouts.others] == [("odd", "macvlan")]


def test_a_pair_with_both_ends_on_the_host_belongs_to_no_pod(lab, view):
    """Such a pair belongs to the host."""
    lab.link("left", "veth", "peer", "name", "right")
    ip("address", "add", "10.5.0.1/24", "dev", "left")
    view.refresh()
    link = view.links[ifindex("left")]
    assert (link.nsid, link.peer_ifindex) == (None, ifindex("right"))
    assert place(view, "10.5.0.1") is LocationKind.HOST


def test_filters_are_seen_where_they_are(lab, view, filters, pass_program):
    """The filters are on the pod's interface, and on an interface that was limited by a command."""
    pod, device = lab.pod("a", ["10.1.0.2/24"]), lab.link("left", "veth", "peer", "name", "right")
    filters.attach(pod.ifindex, Hook.EGRESS, pass_program, 3)
    filters.attach(device, Hook.INGRESS, pass_program, 4)
    view.refresh()
    slots = {ifindex: [each.slot for each in here.ours] for ifindex, here in view.filters.items()}
    assert slots == {pod.ifindex: [3], device: [4]}


def test_filter_on_an_ingress_qdisc_is_seen_once(lab, view, filters, pass_program):
    """An ingress qdisc reports the filter on both hooks."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    tc("qdisc", "add", "dev", pod.veth, "ingress")
    filters.attach(pod.ifindex, Hook.INGRESS, pass_program, 3)
    view.refresh()
    assert [each.hook for each in view.filters[pod.ifindex].ours] == [Hook.INGRESS]


class TestFollowing:
    """After a change, its events and a refresh, the view equals a new view."""

    @pytest.fixture(autouse=True)
    def _started(self, lab: Lab, monitor: Monitor, view: View, connection) -> None:
        self.pod: Pod = lab.pod("a", ["10.1.0.2/24"])
        follow(view, monitor)
        self.lab, self.view, self.monitor, self.connection = lab, view, monitor, connection

    def check(self) -> None:
        # Some events arrive after the change: the kernel announces an IPv6 address asynchronously.
        while self.differs() and select.select([self.monitor], [], [], 10)[0]:
            pass
        assert not self.differs()

    def differs(self) -> bool:
        follow(self.view, self.monitor)
        fresh = View(self.connection, Tcx(PINS))
        fresh.refresh()
        return contents(self.view) != contents(fresh)

    def test_new_pod(self):
        """The veth is found as soon as the pod has its address."""
        pod = self.lab.pod("b", ["10.2.0.2/24", "fd02::2/64"])
        self.check()
        assert found(self.view, "10.2.0.2", "fd02::2") == {pod.ifindex}

    def test_later_address(self):
        """CNI plugins set addresses inside the pod after they create the veth."""
        self.pod.add_address("fd01::2/64")
        self.check()
        assert found(self.view, "fd01::2") == {self.pod.ifindex}

    def test_removed_address(self):
        """Another pod may get the address."""
        ip("address", "delete", "10.1.0.2/24", "dev", "eth0", netns=self.pod.netns)
        self.check()
        assert place(self.view, "10.1.0.2") is LocationKind.UNKNOWN

    def test_new_pod_with_the_address_of_an_ended_pod(self):
        """The new pod may have the same namespace number and the same interface index."""
        self.lab.delete(self.pod)
        self.check()
        pod = self.lab.pod("a", ["10.1.0.2/24"])
        self.check()
        assert found(self.view, "10.1.0.2") == {pod.ifindex}

    def test_pod_that_is_replaced_between_two_refreshes(self):
        """The remaining events lead to the same state as all events."""
        self.lab.delete(self.pod)
        pod = self.lab.pod("a", ["10.3.0.2/24"])
        self.check()
        assert found(self.view, "10.3.0.2") == {pod.ifindex}
        assert place(self.view, "10.1.0.2") is LocationKind.UNKNOWN

    def test_veth_made_on_the_host_and_moved(self):
        """The kernel sends no event for the end that stays on the host."""
        pod = self.lab.pod("b", wire=False)
        self.lab.link("stays", "veth", "peer", "name", "moves")
        self.check()
        ip("link", "set", "moves", "netns", pod.netns)
        self.check()
        assert self.view.links[ifindex("stays")].nsid is not None

    def test_interface_moved_from_one_pod_to_another(self):
        """After the move, the interface belongs to the other pod."""
        pod = self.lab.pod("b", wire=False)
        self.check()
        ip("link", "set", "eth0", "netns", pod.netns, netns=self.pod.netns)
        pod.add_address("10.4.0.2/24")
        self.check()
        assert found(self.view, "10.4.0.2") == {self.pod.ifindex}

    def test_renamed_interface(self):
        """Messages for users contain the current name."""
        ip("link", "set", self.pod.veth, "down")  # kernels before 6.2 do not rename an interface that is up
        ip("link", "set", self.pod.veth, "name", "other")
        self.pod.veths = ["other"]
        self.check()

    def test_added_and_removed_filters(self, filters, pass_program):
        """The view follows changes by any program."""
        filters.attach(self.pod.ifindex, Hook.EGRESS, pass_program, 3)
        self.check()
        assert [each.slot for each in self.view.filters[self.pod.ifindex].ours] == [3]
        tc("filter", "delete", "dev", self.pod.veth, "egress")
        self.check()
        filters.attach(self.pod.ifindex, Hook.EGRESS, pass_program, 3)
        self.check()
        tc("qdisc", "delete", "dev", self.pod.veth, "clsact")
        self.check()
        assert self.pod.ifindex not in self.view.filters

    def test_address_of_the_host(self):
        """The addresses of the host change too."""
        ip("address", "add", "192.0.2.9/32", "dev", "lo")
        self.check()
        assert place(self.view, "192.0.2.9") is LocationKind.HOST

    def test_own_change_without_an_event(self, filters, pass_program):
        """The agent reports its own change to the view, so the view contains it."""
        self.monitor.close()
        with self.view.writable(Interface(self.pod.ifindex)):
            filters.attach(self.pod.ifindex, Hook.EGRESS, pass_program, 3)
        self.view.refresh()
        assert [each.slot for each in self.view.filters[self.pod.ifindex].ours] == [3]


def test_overflow_reads_everything_again(lab, view):
    """The lost events are unknown, so all cached state is stale."""
    view.refresh()
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    assert found(view, "10.1.0.2") == set()
    view.mark_stale(Event(EventKind.OVERFLOW))
    view.refresh()
    assert found(view, "10.1.0.2") == {pod.ifindex}


def test_event_makes_only_its_own_part_stale(lab, view, connection, monkeypatch):
    """With hundreds of pods, an event of one pod must not cause a full read.
    An event of an address contains the address.
    """
    pods = [lab.pod(name, [f"10.{number}.0.2/24"]) for number, name in enumerate("abcd", start=1)]
    view.refresh()
    subjects = []
    for name in ("dump", "dump_partial", "get"):
        original = getattr(connection, name)
        monkeypatch.setattr(
            connection,
            name,
            lambda kind, body, subject, *most, original=original: (
                subjects.append(subject),
                original(kind, body, subject, *most),
            )[1],
        )
    nsid = view.links[pods[1].ifindex].nsid
    view.mark_stale(Event(EventKind.NEW_LINK, None, pods[1].ifindex))
    view.mark_stale(Event(EventKind.NEW_ADDRESS, nsid, 2))
    view.mark_stale(Event(EventKind.NEW_FILTER, None, pods[1].ifindex))
    view.refresh()
    index = pods[1].ifindex
    assert subjects == [
        f"interface {index}",
        f"filters of interface {index} ingress",
        f"filters of interface {index} egress",
    ]
    view.refresh()
    assert len(subjects) == 3


def test_a_namespace_that_ends_during_a_refresh_is_removed(lab, view, monkeypatch):
    """A pod may end at any time, also between two requests."""
    pod, other = lab.pod("a", ["10.1.0.2/24"]), lab.pod("b", ["10.2.0.2/24"])
    read = module.read_addresses

    def end_pod_then_read(connection, nsid=None):
        if pod.name in lab.pods:
            lab.delete(pod)
        return read(connection, nsid)

    monkeypatch.setattr(module, "read_addresses", end_pod_then_read)
    view.refresh()
    assert place(view, "10.1.0.2") is LocationKind.UNKNOWN
    assert found(view, "10.2.0.2") == {other.ifindex}


_FLAP = """
import socket, struct
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
sock.bind((0, 0))
body = struct.pack("=BBBBi", 2, 32, 0, 0, socket.if_nametoindex("eth0"))
body += struct.pack("=HH4s", 8, 2, bytes((10, 200, 0, 1)))
add, remove = (struct.pack("=IHHII", 16 + len(body), *each, 1, 0) + body for each in ((20, 0x401), (21, 1)))
print(flush=True)
while True:
    sock.send(add)
    sock.send(remove)
"""


@contextmanager
def flapping(pod: Pod) -> Iterator[None]:
    """Add and remove an address in a loop. The pod's address dump spans several datagrams."""
    batch = "".join(f"address add 10.9.{n // 250}.{n % 250 + 1}/32 dev eth0\n" for n in range(2000))
    pod.run("sh", "-c", f"echo '{batch}' | ip -batch -")
    with pod.popen(sys.executable, "-c", _FLAP, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def test_a_pod_that_keeps_changing_its_addresses_hides_no_pod(lab, connection):
    """All pods, including this one, stay visible.
    A pod must not stop changes of limits by changes in its own namespace.
    """
    pod, other = lab.pod("a", ["10.1.0.2/24"]), lab.pod("b", ["10.2.0.2/24"])
    with flapping(pod):
        for _ in range(10):
            view = View(connection, Tcx(PINS))
            view.refresh()
            assert found(view, "10.1.0.2") == {pod.ifindex}
            assert found(view, "10.2.0.2") == {other.ifindex}


def test_namespace_with_very_many_addresses_is_read_in_part(lab, view, monkeypatch):
    """An endless dump of one namespace would block all others."""
    pod, other = lab.pod("a", ["10.1.0.2/24", "10.3.0.2/24", "10.4.0.2/24"]), lab.pod("b", ["10.2.0.2/24"])
    monkeypatch.setattr(addresses_module, "MOST", 3)  # one of them is the loopback address
    view.refresh()
    assert found(view, "10.1.0.2") == {pod.ifindex}
    assert place(view, "10.4.0.2") is LocationKind.UNKNOWN
    assert found(view, "10.2.0.2") == {other.ifindex}


def test_a_namespace_whose_addresses_cannot_be_read_keeps_its_state(lab, view, monkeypatch, caplog):
    """The view retries at each refresh, does not block other namespaces, and logs one line."""
    pod, other = lab.pod("a", ["10.1.0.2/24"]), lab.pod("b")
    view.refresh()
    [broken] = view.interfaces_of(pod.ip).nsids
    read = module.read_addresses

    def fail(connection, nsid=None):
        if nsid == broken:
            raise KernelError("list", "addresses", errno.ENOMEM)
        return read(connection, nsid)

    monkeypatch.setattr(module, "read_addresses", fail)
    pod.add_address("10.1.0.3/24")
    other.add_address("10.2.0.2/24")
    for _ in range(2):
        view.invalidate_all()
        view.refresh()
    view.refresh()
    assert found(view, "10.1.0.2") == {pod.ifindex}
    assert found(view, "10.2.0.2") == {other.ifindex}
    assert [each.message for each in caplog.records] == ["addresses not read"]
    monkeypatch.undo()
    view.refresh()
    assert found(view, "10.1.0.3") == {pod.ifindex}


def test_an_interface_that_ends_before_it_is_read_is_removed(lab, view):
    """The interface of an event may no longer exist."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    index = pod.ifindex
    lab.delete(pod)
    for kind in (EventKind.NEW_LINK, EventKind.NEW_FILTER):
        view.mark_stale(Event(kind, None, index))
    view.refresh()
    assert index not in view.links
    assert view.filters.get(index, LinkFilters()) == LinkFilters()


def test_view_cannot_be_changed_from_outside(lab, view):
    """Only the kernel's state changes the view."""
    view.refresh()
    with pytest.raises(TypeError):
        view.links[1] = None


def test_tokenbucket_filters_in_a_pods_namespace_are_found_by_a_search(lab, view, pass_program):
    """An earlier agent may have left filters there. The view forgets namespaces without such filters."""
    with_ours, without = lab.pod("a", ["10.1.0.2/24"]), lab.pod("b", ["10.2.0.2/24"])
    inner = _index_inside(with_ours)
    with connect(with_ours.path) as connection:
        Filters(connection).attach(inner, Hook.EGRESS, pass_program, 5)
    view.refresh()
    assert dict(view.pod_namespaces.known) == {}
    view.pod_namespaces.search()
    view.refresh()
    [found] = view.pod_namespaces.known.values()
    assert found.namespace.inode == with_ours.inode != without.inode
    [ours] = view.filters_at(Interface(inner, with_ours.inode)).ours
    assert ours.slot == 5


def test_a_pods_namespace_is_read_again_when_something_changes_in_it(lab, monitor, view, pass_program):
    """The kernel also sends events about traffic control in other namespaces."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    monitor.read()
    [nsid] = view.interfaces_of(pod.ip).nsids
    entered = view.pod_namespaces.enter(nsid)
    assert entered
    assert entered.filters == {}
    inner = Interface(_index_inside(pod), pod.inode)
    with connect(pod.path) as connection:
        Filters(connection).attach(inner.ifindex, Hook.EGRESS, pass_program, 5)
    follow(view, monitor)
    assert len(view.filters_at(inner).ours) == 1
    lab.delete(pod)
    # The kernel frees the number of a namespace shortly after the namespace ends.
    while view.pod_namespaces.known and select.select([monitor], [], [], 10)[0]:
        follow(view, monitor)
    assert dict(view.pod_namespaces.known) == {}


def test_only_interfaces_that_lead_to_the_node_are_read(lab, view, pass_program):
    """A pod that creates interfaces must not delay the reconcile run."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    ip("link", "add", "many", "type", "veth", "peer", "name", "more", netns=pod.netns)
    inner = _index_inside(pod)
    with connect(pod.path) as connection:
        for each in (inner, _index_inside(pod, "many")):
            Filters(connection).attach(each, Hook.EGRESS, pass_program, 5)
    view.refresh()
    entered = view.pod_namespaces.enter(*view.interfaces_of(pod.ip).nsids)
    assert entered.filters.keys() == {inner}


def test_a_tokenbucket_filter_is_known_while_it_exists(lab, connection, view, pass_program):
    """The filter stays known if the interface leads elsewhere, because its slot is not free."""
    pod, elsewhere = lab.pod("a", ["10.1.0.2/24"]), lab.pod("b", ["10.2.0.2/24"])
    inner = Interface(_index_inside(pod), pod.inode)
    with connect(pod.path) as inside:
        Filters(inside).attach(inner.ifindex, Hook.EGRESS, pass_program, 5)
    view.refresh()
    view.pod_namespaces.enter(*view.interfaces_of(pod.ip).nsids)
    ip("link", "set", "dev", pod.veth, "netns", elsewhere.netns)
    view.invalidate_all()
    view.refresh()
    assert view.filters_at(inner).ours
    after_a_restart = View(connection, Tcx(PINS))
    after_a_restart.pod_namespaces.search()
    after_a_restart.refresh()
    assert after_a_restart.filters_at(inner).ours
    with connect(pod.path) as inside:
        Filters(inside).detach(inner.ifindex, Hook.EGRESS)
    view.invalidate_all()
    view.refresh()
    assert not view.filters_at(inner).ours


def test_a_namespace_is_found_by_another_process_when_the_first_has_ended(lab, view, pass_program):
    """This covers a container without a name in /run/netns. Its filters still exist."""
    first = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    processes = [first]
    try:
        host = Path("/proc/self/ns/net").stat().st_ino
        path = Path(f"/proc/{first.pid}/ns/net")
        wait(lambda: path.stat().st_ino != host)
        processes.append(subprocess.Popen(["nsenter", f"--net={path}", "sleep", "infinity"]))
        lab.link("veth-first", "veth", "peer", "name", "eth0", "netns", str(first.pid))
        view.refresh()
        [nsid] = [link.nsid for link in view.links.values() if link.name == "veth-first"]
        entered = view.pod_namespaces.enter(nsid)
        wait(lambda: Path(f"/proc/{processes[1].pid}/ns/net").stat().st_ino != host)
        first.kill()
        first.wait()
        view.invalidate_all()
        view.refresh()
        found = view.pod_namespaces.enter(nsid)
        assert found.namespace.inode == entered.namespace.inode
        assert found.namespace.path != entered.namespace.path
    finally:
        for each in processes:
            each.kill()
            each.wait()


def _index_inside(pod: Pod, name: str = "eth0") -> int:
    return json.loads(ip("-json", "link", "show", "dev", name, netns=pod.netns))[0]["ifindex"]


def test_the_nodes_namespace_is_not_a_pod(lab, view):
    """A request for a pod's interface gives it a number. Its filters would be listed twice."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    link = view.links[pod.ifindex]
    assert read_traffic(view.connection, link.nsid, link.peer_ifindex) is not None
    assert {each.inode for each in numbered_namespaces(view.connection).values()} == {pod.inode}


def test_an_event_of_an_address_reads_no_other_addresses(
    lab: Lab, view: View, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node may have thousands of addresses, as on kube-ipvs0."""
    pod = lab.pod("a", ["10.1.0.2/24"])
    view.refresh()
    monitor.read()
    monkeypatch.delattr(module, "read_addresses")
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    pod.add_address("10.1.1.3/24")
    ip("address", "delete", "10.1.0.2/24", "dev", "eth0", netns=pod.netns)
    for event in monitor.read():
        if event.kind in ADDRESSES:
            view.mark_stale(event)
    view.refresh()
    nsid = view.links[pod.ifindex].nsid
    assert ip_address("192.0.2.1") in view.addresses[None]
    assert {ip_address("10.1.1.3")} == view.addresses[nsid]
    assert view.interfaces_of(ip_address("10.1.0.2")).place is LocationKind.UNKNOWN


def test_events_of_addresses_lead_to_the_state_of_the_kernel(
    lab: Lab, view: View, monitor: Monitor, connection: Connection, tcx: Tcx
) -> None:
    """Add and remove addresses at random, on several interfaces."""
    chance = random.Random(0)
    pod = lab.pod("a", ["10.1.0.2/24"], interfaces=2)
    lab.link("br0", "bridge")
    view.refresh()
    places = [("lo", None), ("br0", None), ("eth0", pod.netns), ("eth1", pod.netns)]
    addresses = ["10.1.0.2/24", "10.1.0.9/24", "192.0.2.1/32", "fd01::9/64", "fe80::9/64", "127.0.0.9/8"]
    for _ in range(60):
        device, netns = chance.choice(places)
        with contextlib.suppress(AssertionError):  # the address exists already, or does not exist
            ip(
                "address",
                chance.choice(["add", "delete"]),
                chance.choice(addresses),
                "dev",
                device,
                netns=netns,
            )
        for event in monitor.read():
            view.mark_stale(event)
        view.refresh()
        fresh = View(connection, tcx)
        fresh.refresh()
        assert view.addresses == fresh.addresses
        assert view.holders(map(ip_address, ["10.1.0.2", "192.0.2.1"])) == fresh.holders(
            map(ip_address, ["10.1.0.2", "192.0.2.1"])
        )
