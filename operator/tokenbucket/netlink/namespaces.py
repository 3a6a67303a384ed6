"""Network namespaces that can be reached from here, by name or through a process in them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.errors import KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection, connect, kernel_errors
from tokenbucket.netlink.messages import RTGENMSG, attribute, attributes, s32

_OWN = Path("/proc/thread-self/ns/net")
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """A network namespace. The inode is its identity for as long as it lives; the path leads to it."""

    inode: int
    path: Path


def own_namespace() -> Namespace:
    """The calling thread's."""
    return Namespace(_OWN.stat().st_ino, _OWN)


def namespace_at(path: Path) -> Namespace:
    """The namespace that a path leads to. Raises KernelError when there is no such path."""
    with kernel_errors("open", str(path)):
        return Namespace(path.stat().st_ino, path)


def reachable_namespaces() -> tuple[Namespace, ...]:
    """Every namespace that has a name in /run/netns or a process in it, once each, one's own too.

    Raises KernelError.
    """
    with kernel_errors("list", "network namespaces"):
        own, candidates = _OWN.stat(), tuple(_candidates())
    found = {own.st_ino: _OWN}
    for path in candidates:
        try:
            status = path.stat()
        except OSError:  # ended meanwhile, or not ours to look at
            continue
        if status.st_dev == own.st_dev:  # not a plain file, left over where a name was
            found.setdefault(status.st_ino, path)
    return tuple(Namespace(inode, path) for inode, path in sorted(found.items()))


def numbered_namespaces(connection: Connection) -> dict[int, Namespace]:
    """The reachable namespaces that one's own has a number for, by number. It may have one for itself, given
    by the kernel to tell where the other end of a pod's interface is; that is no other namespace.

    Raises KernelError.
    """
    own, found = own_namespace(), {}
    for namespace in reachable_namespaces():
        if namespace.inode == own.inode:
            continue
        try:
            number = _number_of(connection, namespace)
        except KernelError as error:
            if error.errno in _SHORTAGES:  # that says nothing about the namespace
                raise
            continue  # ended meanwhile
        if number >= 0:
            found[number] = namespace
    return found


def _number_of(connection: Connection, namespace: Namespace) -> int:
    with _opened(namespace) as descriptor:
        body = RTGENMSG.pack(socket.AF_UNSPEC) + attribute(uapi.NETNSA_FD, struct.pack("=I", descriptor))
        answer = connection.get(uapi.RTM_GETNSID, body, f"number of {namespace.path}")
    number = s32(attributes(answer.body, RTGENMSG.size).get(uapi.NETNSA_NSID))
    return -1 if number is None else number


@contextmanager
def inside(namespace: Namespace) -> Iterator[Connection]:
    """A connection to a namespace. Not kept: an open socket would keep the namespace alive.

    Raises KernelError, ENOENT when the path leads to another namespace by now, EPERM without the right.
    """
    with _opened(namespace) as descriptor, connect(descriptor) as connection:
        yield connection


@contextmanager
def _opened(namespace: Namespace) -> Iterator[int]:
    with kernel_errors("open", str(namespace.path)):
        descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino != namespace.inode:
            raise KernelError("open", str(namespace.path), errno.ENOENT)
        yield descriptor
    finally:
        os.close(descriptor)


def _candidates() -> Iterator[Path]:
    named = Path("/run/netns")
    if named.is_dir():
        yield from sorted(named.iterdir())
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            yield process / "ns/net"
