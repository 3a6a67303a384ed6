"""Monitors interfaces, addresses, qdiscs and filters of this namespace and of all namespaces with a number.

``NETLINK_LISTEN_ALL_NSID`` delivers events of pods' namespaces too, such as a new address of a pod. The
monitor is a plain socket: events come in thousands, and only a few bytes of each are read.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tokenbucket.errors import KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import kernel_errors
from tokenbucket.netlink.events import Event, EventKind, parse

_GROUPS = (
    uapi.RTNLGRP_LINK,
    uapi.RTNLGRP_TC,
    uapi.RTNLGRP_IPV4_IFADDR,
    uapi.RTNLGRP_IPV6_IFADDR,
    uapi.RTNLGRP_NSID,
)
_RCVBUF_BYTES = 16 << 20
_DATAGRAM_BYTES = 1 << 16
_DATAGRAMS_PER_READ = 4096

Ignoring = Callable[[int, int], AbstractContextManager[None]]
"""Discards the events that a port of another namespace, given by number, causes inside the context."""


def ignore_nothing(_nsid: int, _portid: int) -> AbstractContextManager[None]:
    """Discard no events."""
    return nullcontext()


class Monitor:
    """A socket that receives events from the moment of its creation."""

    def __init__(self, ignore: AbstractSet[int] = frozenset()) -> None:
        """Open the socket in the calling thread's namespace.

        ``ignore`` contains port ids, of the agent's own connections, whose events in this namespace are
        discarded.

        Raises:
            KernelError: the socket cannot be opened.
        """
        self._ignore = ignore
        self._ignored_elsewhere: tuple[int, int] | None = None
        self._read_early: list[Event] = []
        with kernel_errors("watch", "rtnetlink"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            try:
                self._subscribe()
            except OSError:
                self._socket.close()
                raise

    def _subscribe(self) -> None:
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, uapi.SO_RCVBUFFORCE, _RCVBUF_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF_BYTES)
        self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, 1)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the file descriptor, which is readable when there are events."""
        return self._socket.fileno()

    @property
    def has_read_early(self) -> bool:
        """Whether there are events that no longer make the socket readable."""
        return bool(self._read_early)

    def read(self) -> list[Event]:
        """Return the queued events, oldest first, without blocking. OVERFLOW stands for lost events.

        Raises:
            KernelError: the socket fails.
        """
        events, self._read_early = self._read_early, []
        return events + self._read_queued()

    @contextmanager
    def ignoring(self, nsid: int, portid: int) -> Iterator[None]:
        """Discard the events that an open socket in another namespace causes inside the context.

        Before and after, a process in that namespace may have the same port, so all queued events are read.
        The kernel queues an event before it acknowledges the change.

        Raises:
            KernelError: the socket fails.
        """
        self._read_ahead()
        self._ignored_elsewhere = nsid, portid
        try:
            yield
            self._read_ahead()
        finally:
            self._ignored_elsewhere = None

    def _read_ahead(self) -> None:
        """Keep the queued events for :meth:`read`: at most as many as one read returns."""
        self._read_early += self._read_queued()
        if len(self._read_early) > _DATAGRAMS_PER_READ:
            self._read_early = [Event(EventKind.OVERFLOW)]

    def _read_queued(self) -> list[Event]:
        events: list[Event] = []
        for _ in range(_DATAGRAMS_PER_READ):
            try:
                events += self._receive()
            except BlockingIOError:
                break
        return events

    def _receive(self) -> list[Event]:
        try:
            data, ancillary, flags, sender = self._socket.recvmsg(_DATAGRAM_BYTES, socket.CMSG_SPACE(4))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return [Event(EventKind.OVERFLOW)]
            raise KernelError("watch", "rtnetlink", error.errno or errno.EIO) from error
        if sender[0] != 0:  # not from the kernel
            return []
        if flags & socket.MSG_TRUNC:
            return [Event(EventKind.OVERFLOW)]
        nsid = _nsid(ancillary)
        return [event for event in parse(data, nsid) if not self._is_own(event)]

    def _is_own(self, event: Event) -> bool:
        if event.nsid is None:
            return event.portid in self._ignore
        return (event.nsid, event.portid) == self._ignored_elsewhere

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _nsid(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, payload in ancillary:
        if (level, kind) == (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID):
            return int(struct.unpack("=i", payload[:4])[0])
    return None
