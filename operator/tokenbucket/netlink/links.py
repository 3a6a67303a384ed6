"""Network interfaces of a namespace, and the namespaces of their peers."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

from tokenbucket.errors import IgnoreErrno
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import LINK, Message, attribute, attributes, s32, text, u32

_SKIP_STATS = attribute(uapi.IFLA_EXT_MASK, struct.pack("=I", uapi.RTEXT_FILTER_SKIP_STATS))
_XDP_PROGRAM_IDS = (
    uapi.IFLA_XDP_PROG_ID,
    uapi.IFLA_XDP_DRV_PROG_ID,
    uapi.IFLA_XDP_SKB_PROG_ID,
    uapi.IFLA_XDP_HW_PROG_ID,
)
_TRAFFIC = struct.Struct("=QQQQ")
_MOST = 1024
"""Interfaces read of one pod. A pod with very many interfaces must not delay the reading of others."""
VETH = "veth"
_OVS = "openvswitch"
_OF_TWO_ENDS = {VETH, "tun", "wireguard"}
LOOPBACK = 1
"""The kernel gives this index to the loopback interface of every namespace."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. The kernel may give its index to another interface after it is deleted."""

    ifindex: int
    name: str
    kind: str
    """Such as ``veth`` or ``bridge``; empty for hardware and the loopback interface."""
    nsid: int | None
    """Number of the namespace of the peer; ``None`` if the peer is in this namespace."""
    peer_ifindex: int | None
    """Index of the peer in its namespace; ``None`` if the interface has no peer."""
    xdp_program_id: int = 0
    """The XDP program that runs on received packets; 0 if there is none."""
    is_hardware: bool = False
    """Whether the interface is a network adapter, or a virtual function of one."""

    @property
    def leads_elsewhere(self) -> bool:
        """Whether packets leave the namespace here, but not to the other end of a veth pair.

        An interface on top of another interface of its namespace, such as a VLAN, has no namespace of a peer.
        Neither has a port of Open vSwitch, which leads to the switch.
        """
        return self.is_hardware or self.kind == _OVS or (self.nsid is not None and self.kind != VETH)

    @property
    def has_other_end(self) -> bool:
        """Whether packets leave at another end, which may be in any namespace or process."""
        return self.kind in _OF_TWO_ENDS


def read_links(connection: Connection) -> dict[int, Link]:
    """Return all interfaces by index. Raises KernelError."""
    messages = connection.dump(
        uapi.RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _SKIP_STATS, "interfaces"
    )
    links = (_link(message) for message in messages)
    return {link.ifindex: link for link in links}


def read_links_of(connection: Connection, nsid: int) -> tuple[Link, ...]:
    """Return the first 1024 interfaces of another namespace; none if the namespace does not exist.

    Raises:
        KernelError: the kernel rejects the request.
    """
    target = attribute(uapi.IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + target + _SKIP_STATS
    with IgnoreErrno(errno.EINVAL):
        messages = connection.dump_partial(uapi.RTM_GETLINK, body, f"interfaces of namespace {nsid}", _MOST)
        return tuple(map(_link, messages))
    return ()


def read_link(connection: Connection, ifindex: int) -> Link | None:
    """Return the interface with this index, or ``None``. Raises KernelError."""
    return _get(connection, ifindex, _SKIP_STATS, f"interface {ifindex}")


def find_link(connection: Connection, name: str) -> Link | None:
    """Return the interface with this name, or ``None``. Raises KernelError."""
    if not 0 < len(name.encode()) < 16:
        return None
    return _get(connection, 0, attribute(uapi.IFLA_IFNAME, name.encode() + b"\0") + _SKIP_STATS, name)


class Traffic(NamedTuple):
    """The first counters of ``struct rtnl_link_stats64``, since the interface was created."""

    received_packets: int
    sent_packets: int
    received_bytes: int
    sent_bytes: int


def read_traffic(connection: Connection, nsid: int, ifindex: int) -> Traffic | None:
    """Return the counters of an interface of another namespace.

    Returns ``None`` if the interface no longer exists. ``IFLA_TARGET_NETNSID`` selects the namespace.

    Raises:
        KernelError: the kernel rejects the request.
    """
    target = attribute(uapi.IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    body = LINK.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + target
    with IgnoreErrno(errno.ENODEV, errno.EINVAL):
        message = connection.get(uapi.RTM_GETLINK, body, f"interface {ifindex} of namespace {nsid}")
        return _traffic(message)
    return None


def _get(connection: Connection, ifindex: int, wanted: bytes, subject: str) -> Link | None:
    with IgnoreErrno(errno.ENODEV):
        return _link(connection.get(uapi.RTM_GETLINK, LINK.pack(0, 0, ifindex, 0, 0) + wanted, subject))
    return None


def _traffic(message: Message) -> Traffic | None:
    stats = attributes(message.body, LINK.size).get(uapi.IFLA_STATS64, b"")
    return Traffic(*_TRAFFIC.unpack_from(stats)) if len(stats) >= _TRAFFIC.size else None


def _link(message: Message) -> Link:
    _, type_of_hardware, ifindex, _, _ = LINK.unpack_from(message.body)
    found = attributes(message.body, LINK.size)
    info = attributes(found.get(uapi.IFLA_LINKINFO, b""))
    xdp = attributes(found.get(uapi.IFLA_XDP, b""))
    kind = text(info.get(uapi.IFLA_INFO_KIND, b""))
    return Link(
        ifindex=ifindex,
        name=text(found.get(uapi.IFLA_IFNAME, b"")),
        kind=kind,
        nsid=s32(found.get(uapi.IFLA_LINK_NETNSID)),
        peer_ifindex=s32(found.get(uapi.IFLA_LINK)),
        xdp_program_id=next(filter(None, (u32(xdp.get(each)) for each in _XDP_PROGRAM_IDS)), 0),
        is_hardware=not kind and type_of_hardware in {uapi.ARPHRD_ETHER, uapi.ARPHRD_INFINIBAND},
    )
