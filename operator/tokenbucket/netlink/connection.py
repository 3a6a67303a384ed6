"""Connections to rtnetlink in this network namespace or another.

A socket stays in the network namespace in which it was opened. For another namespace, a thread enters the
namespace, opens the socket and ends, and so do other system calls that act on a thread's namespace. The
calling thread stays in its namespace, and no process is forked.

A connection belongs to the thread that opened it, and cannot be used inside a running asyncio loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from pyroute2.iproute import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tokenbucket.errors import IgnoreErrno, KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.messages import Marshal, Message, Request

T = TypeVar("T")

_BUFFER_BYTES = 1 << 20
_ATTEMPTS = 10
_READ = os.O_RDONLY | os.O_CLOEXEC
OWN = Path("/proc/thread-self/ns/net")
"""The namespace of the calling thread."""

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def kernel_errors(operation: str, subject: str) -> Iterator[None]:
    """Convert NetlinkError and OSError inside the context to KernelError."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(operation, subject, error.code) from error
    except OSError as error:
        raise KernelError(operation, subject, error.errno or errno.EIO) from error


class Connection:
    """A ``NETLINK_ROUTE`` socket with pyroute2 on top. Close it, or use it as a context manager."""

    def __init__(self, sock: socket.socket, namespace: int | None = None) -> None:
        """Take over a socket, and the descriptor of its namespace if that is not the thread's."""
        self._socket = sock
        self._namespace = namespace
        self._route = IPRoute(use_socket=sock)
        self._marshal = Marshal()
        self._route.set_marshal(self._marshal)
        self._route.status["nlm_generator"] = (
            False  # nlm_request reads it, and IPRoute with use_socket does not set it
        )

    @property
    def portid(self) -> int:
        """The port id of the socket. Events that the connection causes have this sender."""
        return int(self._socket.getsockname()[0])

    def dump(self, kind: int, body: bytes, subject: str) -> list[Message]:
        """Return all answers to a dump request, and repeat an interrupted dump.

        ``kind`` is an ``RTM_GET*`` type, and ``body`` follows the ``struct nlmsghdr``.

        Raises:
            KernelError: the kernel rejects the request, or with EINTR if ten dumps are interrupted.
        """
        with kernel_errors("list", subject):
            for _ in range(_ATTEMPTS):
                messages, whole = self._dump_once(kind, body)
                if whole:
                    return messages
        raise KernelError("list", subject, errno.EINTR)

    def dump_partial(self, kind: int, body: bytes, subject: str, most: int) -> list[Message]:
        """Return the first ``most`` answers to a dump request, even if the dump is interrupted.

        For objects that a pod may change all the time. A change that the dump misses causes an event, and
        the event causes another dump.

        Raises:
            KernelError: the kernel rejects the request.
        """
        with kernel_errors("list", subject):
            messages, _ = self._dump_once(kind, body, most)
        return messages

    def _dump_once(self, kind: int, body: bytes, most: int = sys.maxsize) -> tuple[list[Message], bool]:
        """Return the answers, and whether the dump was not interrupted."""
        self._marshal.begin(most)
        request = Request(kind, uapi.NLM_F_REQUEST | uapi.NLM_F_DUMP, body)
        messages: list[Message] = self._route.nlm_request_batch([request])
        return messages, not self._marshal.interrupted

    def get(self, kind: int, body: bytes, subject: str) -> Message:
        """Return the answer to a request for one object. Raises KernelError if the object does not exist."""
        with kernel_errors("get", subject):
            # No NLM_F_ACK: pyroute2 stops at the answer, and would never discard the acknowledgment.
            (message,) = self._route.nlm_request(Request(kind, 0, body), kind, uapi.NLM_F_REQUEST)
        return message  # type: ignore[no-any-return] # pyroute2 has no types

    def change(self, kind: int, flags: int, body: bytes, subject: str) -> None:
        """Send a request for a change and wait for its acknowledgment. Raises KernelError."""
        with kernel_errors("change", subject):
            self._route.nlm_request(Request(kind, 0, body), kind, uapi.NLM_F_REQUEST | uapi.NLM_F_ACK | flags)

    def tc(self, command: str, kind: str, ifindex: int, subject: str, **parameters: Any) -> None:  # noqa: ANN401
        """Change a qdisc or filter by pyroute2's ``tc``. Raises KernelError."""
        with kernel_errors(f"{command} {kind}", subject):
            self._route.tc(command, kind, ifindex, **parameters)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the connection's namespace: in another thread, if it is not this thread's.

        Raises:
            KernelError: the thread may not enter the namespace, or the function raises it.
        """
        return function() if self._namespace is None else _call_in(self._namespace, function, "namespace")

    def close(self) -> None:
        """Close the socket."""
        self._route.close()
        self._socket.close()
        if self._namespace is not None:
            os.close(self._namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(namespace: Path | int | None = None) -> Connection:
    """Open a connection to the calling thread's network namespace, or to that of a path or file descriptor.

    Raises:
        KernelError: the namespace does not exist, or the process may not enter it.
    """
    if namespace is None:
        with kernel_errors("open", "rtnetlink"):
            return Connection(_open_socket())
    with kernel_errors("open", str(namespace)):
        opened = os.dup(namespace) if isinstance(namespace, int) else os.open(namespace, _READ)
    if os.path.samestat(os.fstat(opened), OWN.stat()):  # setns(2) would need SYS_ADMIN
        os.close(opened)
        return connect()
    try:
        return Connection(_call_in(opened, _open_socket, str(namespace)), opened)
    except BaseException:
        os.close(opened)
        raise


def _open_socket() -> socket.socket:
    # pyroute2 does not accept SOCK_RAW; the kernel treats both types alike.
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_EXT_ACK, 1)
        # Without strict checks the kernel ignores IFA_TARGET_NETNSID and lists the wrong addresses.
        sock.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_GET_STRICT_CHK, 1)
        sock.bind((0, 0))
    except OSError:
        sock.close()
        raise
    return sock


def may_enter() -> bool:
    """Return whether this process may enter network namespaces. That needs SYS_ADMIN. Raises KernelError."""
    with OWN.open("rb") as own, IgnoreErrno(errno.EPERM):
        _call_in(own.fileno(), lambda: None, str(OWN))
        return True
    return False


def call_in_new_namespace(function: Callable[[], T]) -> T:
    """Return the result of a function that another thread calls inside a new network namespace.

    The namespace ends when nothing refers to it. Raises KernelError.
    """
    return _call_after(lambda: int(_libc.unshare(uapi.CLONE_NEWNET)), function, "new network namespace")


def _call_in(namespace: int, function: Callable[[], T], subject: str) -> T:
    """Return the result of a function that another thread calls inside a namespace."""
    return _call_after(lambda: int(_libc.setns(namespace, uapi.CLONE_NEWNET)), function, subject)


def _call_after(enter: Callable[[], int], function: Callable[[], T], subject: str) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            if enter() != 0:
                raise KernelError("enter", subject, ctypes.get_errno())  # noqa: TRY301 - raised again
            with kernel_errors("enter", subject):
                results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=enter_and_call, name="enter-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
