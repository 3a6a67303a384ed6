"""What an interface of another namespace has received, as the kernel counts it there."""

from __future__ import annotations

import errno
import socket
import struct

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import LINK, attribute, attributes

_RTM_GETLINK = 18
_IFLA_STATS64, _IFLA_TARGET_NETNSID = 23, 46


def received_packets(connection: Connection, nsid: int, ifindex: int) -> int | None:
    """Packets that an interface has received since it was made; ``None`` when it is gone.

    Raises KernelError.
    """
    wanted = LINK.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0)
    wanted += attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    try:
        message = connection.get(_RTM_GETLINK, wanted, f"interface {ifindex} of namespace {nsid}")
    except KernelError as error:
        if error.errno in {errno.ENODEV, errno.EINVAL}:
            return None
        raise
    stats = attributes(message.body, LINK.size).get(_IFLA_STATS64)
    return None if stats is None else int(struct.unpack_from("=Q", stats)[0])
