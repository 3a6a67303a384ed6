"""Connections to this namespace and to others, and their reaction to errors of the kernel."""

from __future__ import annotations

import errno
import os
import struct
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns.lab import ip
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import KernelError
from tokenbucket.netlink.addresses import read_addresses
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.links import find_link, read_link, read_links
from tokenbucket.netlink.messages import HEADER, Marshal, attribute, attributes
from tokenbucket.netlink.namespaces import namespace_at, own_namespace, reachable_namespaces


@pytest.fixture
def pod(lab):
    return lab.pod("a", ["10.1.0.2/24", "fd01::2/64"])


def test_other_namespace_is_reached_by_path_and_by_descriptor(pod):
    """The connection needs no fork, and the process stays in its namespace."""
    before = own_namespace().inode
    descriptor = os.open(pod.path, os.O_RDONLY)
    for place in (pod.path, descriptor):
        with connect(place) as inside:
            assert read_addresses(inside).addresses == {ip_address("10.1.0.2"), ip_address("fd01::2")}
            assert {link.name for link in read_links(inside).values()} == {"lo", "eth0"}
    os.close(descriptor)
    assert own_namespace().inode == before


def test_filter_is_attached_in_another_namespace(pod, pass_program):
    """An interface of another namespace can be limited."""
    with connect(pod.path) as inside:
        eth0 = find_link(inside, "eth0")
        Filters(inside).attach(eth0.ifindex, Hook.EGRESS, pass_program, 3)
        assert [each.slot for each in Filters(inside).read(eth0.ifindex).ours] == [3]
    with connect() as outside:
        assert Filters(outside).read(pod.ifindex).ours == ()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_open(pod):
    """An agent opens connections during its whole lifetime."""
    connect(pod.path).close()
    before = open_files(), threading.active_count()
    for _ in range(10):
        with connect(pod.path) as inside:
            read_links(inside)
    assert (open_files(), threading.active_count()) == before


def test_a_missing_path_is_named_in_the_error(tmp_path):
    """The error names the path."""
    with pytest.raises(KernelError, match=r"open .*/none: .*ENOENT"):
        connect(tmp_path / "none")


def test_a_path_without_a_namespace_is_rejected(tmp_path):
    """After a crash, a name in /run/netns may exist without its namespace."""
    (tmp_path / "plain").write_text("")
    with pytest.raises(KernelError, match=r"enter .*/plain: .*EINVAL"):
        connect(tmp_path / "plain")


def test_links_and_addresses_by_name_index_and_number(pod, connection):
    """Each way of lookup returns the same link."""
    link = find_link(connection, pod.veth)
    assert link == read_link(connection, pod.ifindex) == read_links(connection)[pod.ifindex]
    assert (link.name, link.kind, link.peer_ifindex) == (pod.veth, "veth", 2)
    found = read_addresses(connection, link.nsid)
    assert found.addresses == {ip_address("10.1.0.2"), ip_address("fd01::2")}
    assert found.ifindexes == {1, link.peer_ifindex}


@pytest.mark.parametrize("name", ["none", "", "a-name-that-is-too-long"])
def test_a_missing_link_is_not_an_error(connection, name):
    """A missing link is a valid result, not an error."""
    assert find_link(connection, name) is None
    assert read_link(connection, 999_999) is None


def test_a_missing_namespace_has_no_addresses(connection):
    """In particular, the result does not contain the addresses of this namespace."""
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    try:
        assert read_addresses(connection, 4_000) is None
    finally:
        ip("address", "flush", "dev", "lo", "scope", "global")


def test_the_address_of_a_point_to_point_link_is_the_local_one(lab, connection):
    """The kernel returns the remote address in the more prominent attribute."""
    pod = lab.pod("a")
    ip("address", "add", "10.7.0.2", "peer", "10.7.0.1", "dev", "eth0", netns=pod.netns)
    nsid = read_link(connection, pod.ifindex).nsid
    assert read_addresses(connection, nsid).addresses == {ip_address("10.7.0.2")}


def test_reachable_namespaces_are_named_once(lab, pod):
    """A namespace is reachable by a name, by a process, or by both."""
    unnamed = lab.pod("b")
    with unnamed.popen("sleep", "infinity") as process:
        try:
            found = {namespace.inode: namespace.path for namespace in reachable_namespaces()}
            assert found[pod.inode] == pod.path
            assert {own_namespace().inode, unnamed.inode} <= found.keys()
            assert len(found) == len(set(found.values()))
        finally:
            process.kill()
    assert namespace_at(pod.path).inode == pod.inode


def test_a_namespace_without_a_name_is_found_by_its_process(lab):
    """Container runtimes do not always leave a name in /run/netns."""
    pod = lab.pod("b")
    inode = pod.inode
    with pod.popen("sh", "-c", "echo; exec sleep infinity", stdout=-1) as process:
        try:
            process.stdout.readline()
            ip("netns", "delete", pod.netns)
            ip("netns", "add", pod.netns)  # a second name, so that the lab finds a namespace to delete
            found = {namespace.inode: namespace.path for namespace in reachable_namespaces()}
            assert str(found[inode]).startswith("/proc/")
        finally:
            process.kill()


def test_a_name_without_a_namespace_is_ignored(lab, pod):
    """If a machine crashes, ip leaves a plain file."""
    stale = pod.path.with_name("stale")
    stale.write_text("")
    try:
        assert stale not in {namespace.path for namespace in reachable_namespaces()}
    finally:
        stale.unlink()


def test_any_message_can_mark_a_dump_as_interrupted():
    """Pyroute2 ignores the flag, so its list could lack the changed entries."""
    middle = HEADER.pack(16, 16, 0x2 | 0x10, 7, 0)
    end = HEADER.pack(20, 3, 0x2, 7, 0) + bytes(4)
    marshal = Marshal()
    assert len(list(marshal.parse(middle + end))) == 2
    assert marshal.interrupted
    marshal.begin()
    list(marshal.parse(end))
    assert not marshal.interrupted


def test_failed_dump_is_an_error_at_its_end():
    """Pyroute2 would return an empty list instead."""
    end = HEADER.pack(20, 3, 0x2, 7, 0) + struct.pack("=i", -errno.EPERM)
    (last,) = Marshal().parse(end)
    assert last["header"]["error"].code == errno.EPERM


def test_an_interrupted_dump_is_retried(connection, monkeypatch):
    """Most changes end before the retry. If each dump is interrupted, the call raises an error."""
    answers = iter([([], False), (["half"], False), (["link"], True)])
    monkeypatch.setattr(connection, "_dump_once", lambda *_: next(answers, ([], False)))
    assert connection.dump(18, b"", "interfaces") == ["link"]
    with pytest.raises(KernelError, match="EINTR"):
        connection.dump(18, b"", "interfaces")


def test_attributes_are_read_back():
    """The attributes have the padding that the kernel requires."""
    data = attribute(1, b"a") + attribute(2, b"") + attribute(0x8003, b"four")
    assert len(data) % 4 == 0
    assert attributes(data) == {1: b"a", 2: b"", 3: b"four"}
    assert attributes(data[:-3]) == {1: b"a", 2: b"", 3: b"f"}
