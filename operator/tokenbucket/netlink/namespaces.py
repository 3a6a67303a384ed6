"""Network namespaces that have a name in /run/netns or a process."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.errors import KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import OWN, Connection, connect, kernel_errors
from tokenbucket.netlink.messages import RTGENMSG, attribute, attributes, s32

_NAMED = Path("/run/netns")
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """A network namespace. Its inode identifies it during its lifetime; its path can be opened."""

    inode: int
    path: Path


def own_namespace() -> Namespace:
    """Return the calling thread's namespace."""
    return Namespace(OWN.stat().st_ino, OWN)


def namespace_at(path: Path) -> Namespace:
    """Return the namespace at a path. Raises KernelError if the path does not exist."""
    with kernel_errors("open", str(path)):
        return Namespace(path.stat().st_ino, path)


def reachable_namespaces() -> tuple[Namespace, ...]:
    """Return each namespace once that has a name in /run/netns or a process, including the caller's.

    Raises:
        KernelError: /proc or /run/netns cannot be read.
    """
    with kernel_errors("list", "network namespaces"):
        own, candidates = OWN.stat(), tuple(_candidates())
    found = {own.st_ino: OWN}
    for path in candidates:
        try:
            status = path.stat()
        except OSError:  # the process has ended, or may not be inspected
            continue
        if status.st_dev == own.st_dev:  # a plain file may be left over from a name
            found.setdefault(status.st_ino, path)
    return tuple(Namespace(inode, path) for inode, path in sorted(found.items()))


def numbered_namespaces(connection: Connection) -> dict[int, Namespace]:
    """Return the reachable namespaces that have a number in the caller's namespace, by number.

    The caller's namespace may have a number for itself, which the result omits.

    Raises:
        KernelError: the namespaces cannot be listed, or a resource is exhausted.
    """
    own, found = own_namespace(), {}
    for namespace in reachable_namespaces():
        if namespace.inode == own.inode:
            continue
        try:
            number = _number_of(connection, namespace)
        except KernelError as error:
            if error.errno in _SHORTAGES:  # the namespace may still exist
                raise
            continue  # the namespace has ended
        if number >= 0:
            found[number] = namespace
    return found


def named_namespaces() -> Iterator[Namespace]:
    """Yield the namespaces that have a name in /run/netns, without the caller's.

    Raises:
        KernelError: /run/netns cannot be read.
    """
    own = OWN.stat()
    with kernel_errors("list", str(_NAMED)):
        paths = tuple(_named())
    for path in paths:
        with suppress(OSError):  # the name is gone
            status = path.stat()
            if status.st_dev == own.st_dev and status.st_ino != own.st_ino:
                yield Namespace(status.st_ino, path)


def named_namespace(name: str) -> Namespace | None:
    """Return the namespace with a name in /run/netns, or ``None``. It may be the caller's own."""
    path = _NAMED / name
    try:
        status = path.stat()
    except OSError:
        return None
    return Namespace(status.st_ino, path) if status.st_dev == OWN.stat().st_dev else None


def name_exists(name: str) -> bool:
    """Return whether there is a name in /run/netns, even if no namespace can be seen there."""
    return os.path.lexists(_NAMED / name)


def ensure_number(connection: Connection, namespace: Namespace) -> int | None:
    """Return the number of a namespace in the caller's, which is assigned if there is none.

    Addresses of a namespace without a number cannot be read from outside, and its events do not arrive.
    Returns ``None`` if the namespace has ended, or cannot be opened.

    Raises:
        KernelError: a resource is exhausted.
    """
    try:
        number = _number_of(connection, namespace)
        if number < 0:
            _assign_number(connection, namespace)
            number = _number_of(connection, namespace)
    except KernelError as error:
        if error.errno in _SHORTAGES:
            raise
        return None
    return number


def _assign_number(connection: Connection, namespace: Namespace) -> None:
    with _opened(namespace) as descriptor:
        body = RTGENMSG.pack(socket.AF_UNSPEC) + attribute(uapi.NETNSA_NSID, struct.pack("=i", -1))
        body += attribute(uapi.NETNSA_FD, struct.pack("=I", descriptor))
        connection.change(uapi.RTM_NEWNSID, 0, body, f"number of {namespace.path}")


def _number_of(connection: Connection, namespace: Namespace) -> int:
    with _opened(namespace) as descriptor:
        body = RTGENMSG.pack(socket.AF_UNSPEC) + attribute(uapi.NETNSA_FD, struct.pack("=I", descriptor))
        answer = connection.get(uapi.RTM_GETNSID, body, f"number of {namespace.path}")
    number = s32(attributes(answer.body, RTGENMSG.size).get(uapi.NETNSA_NSID))
    return -1 if number is None else number


@contextmanager
def inside(namespace: Namespace) -> Iterator[Connection]:
    """Provide a connection to a namespace, and close it: an open socket would keep the namespace alive.

    Raises:
        KernelError: with ENOENT if the path leads to another namespace, with EPERM without SYS_ADMIN.
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
    yield from _named()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            yield process / "ns/net"


def _named() -> Iterator[Path]:
    if _NAMED.is_dir():
        yield from sorted(_NAMED.iterdir())
