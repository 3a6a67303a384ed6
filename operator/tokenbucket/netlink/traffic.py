"""Packet counters of an interface in another namespace."""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import LINK, attribute, attributes

_RTM_GETLINK = 18
_IFLA_STATS64, _IFLA_TARGET_NETNSID = 23, 46


class Packets(NamedTuple):
    """The first counters of ``struct rtnl_link_stats64``, since the interface was made."""

    received: int
    sent: int


def read_packets(connection: Connection, nsid: int, ifindex: int) -> Packets | None:
    """Return the counters of an interface; ``None`` if it is gone. Raises KernelError."""
    wanted = LINK.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0)
    wanted += attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    try:
        message = connection.get(_RTM_GETLINK, wanted, f"interface {ifindex} of namespace {nsid}")
    except KernelError as error:
        if error.errno in {errno.ENODEV, errno.EINVAL}:
            return None
        raise
    stats = attributes(message.body, LINK.size).get(_IFLA_STATS64)
    return None if stats is None else Packets(*struct.unpack_from("=QQ", stats))
