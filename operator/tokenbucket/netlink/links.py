"""Network interfaces of one namespace, and for each where its other end is."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import LINK, Message, attribute, attributes, text

_RTM_GETLINK = 18
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 3, 5, 18, 29, 37
_IFLA_XDP = 43
_IFLA_XDP_PROG_IDS = 4, 5, 6, 7
"""Of the only program, or of those in the driver, in the generic hook and in hardware."""
_IFLA_INFO_KIND = 1
_SKIP_STATS = attribute(_IFLA_EXT_MASK, struct.pack("=I", 8))
VETH = "veth"


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. Its index may be another's after it is deleted."""

    ifindex: int
    name: str
    kind: str
    """Such as ``veth`` or ``bridge``; empty for hardware and the loopback interface."""
    nsid: int | None
    """The namespace of the other end, as this namespace numbers it; ``None`` when it is this namespace."""
    peer_ifindex: int | None
    """Index of the other end in its own namespace; ``None`` when there is no other end."""
    xdp_program_id: int = 0
    """The XDP program that runs on received packets; 0 if there is none."""


def read_links(connection: Connection) -> dict[int, Link]:
    """All interfaces by index. Raises KernelError."""
    messages = connection.dump(
        _RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _SKIP_STATS, "interfaces"
    )
    links = (_link(message) for message in messages)
    return {link.ifindex: link for link in links}


def read_link(connection: Connection, ifindex: int) -> Link | None:
    """One interface, or ``None`` when there is none of this index. Raises KernelError."""
    return _get(connection, ifindex, _SKIP_STATS, f"interface {ifindex}")


def find_link(connection: Connection, name: str) -> Link | None:
    """The interface of this name, or ``None``. Raises KernelError."""
    if not 0 < len(name.encode()) < 16:
        return None
    return _get(connection, 0, attribute(_IFLA_IFNAME, name.encode() + b"\0") + _SKIP_STATS, name)


def _get(connection: Connection, ifindex: int, wanted: bytes, subject: str) -> Link | None:
    try:
        return _link(connection.get(_RTM_GETLINK, LINK.pack(0, 0, ifindex, 0, 0) + wanted, subject))
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _link(message: Message) -> Link:
    _, _, ifindex, _, _ = LINK.unpack_from(message.body)
    found = attributes(message.body, LINK.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    xdp = attributes(found.get(_IFLA_XDP, b""))
    return Link(
        ifindex=ifindex,
        name=text(found.get(_IFLA_IFNAME, b"")),
        kind=text(info.get(_IFLA_INFO_KIND, b"")),
        nsid=_number(found.get(_IFLA_LINK_NETNSID)),
        peer_ifindex=_number(found.get(_IFLA_LINK)),
        xdp_program_id=next(filter(None, (_number(xdp.get(kind)) for kind in _IFLA_XDP_PROG_IDS)), 0),
    )


def _number(payload: bytes | None) -> int | None:
    return None if payload is None else int(struct.unpack("=i", payload)[0])
