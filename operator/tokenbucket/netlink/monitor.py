"""Monitors interfaces, addresses, qdiscs and filters of this namespace and of all namespaces with a number.

``NETLINK_LISTEN_ALL_NSID`` delivers events of pods' namespaces too, such as a new address of a pod. The
monitor is a plain socket: events come in thousands, and only a few bytes of each are read.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Set as AbstractSet

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

    def read(self) -> list[Event]:
        """Return the queued events, oldest first, without blocking. OVERFLOW stands for lost events.

        Raises:
            KernelError: the socket fails.
        """
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
        return [event for event in parse(data, nsid) if nsid is not None or event.portid not in self._ignore]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _nsid(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, payload in ancillary:
        if (level, kind) == (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID):
            return int(struct.unpack("=i", payload[:4])[0])
    return None
