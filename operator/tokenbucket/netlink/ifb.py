"""tokenbucket's ifb device inside a pod, in whose queue packets wait that the pod receives.

A qdisc delays packets only when they leave an interface. A program at the ingress hook of the pod redirects
packets to the ifb device, and they leave it through its egress hook and its queue. Then the kernel continues
with the packet as received by the first interface, after its hooks. All interfaces of a pod share the device.
"""

from __future__ import annotations

import errno

from tokenbucket.errors import IgnoreErrno, KernelError, UnsupportedError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.links import Link, read_link
from tokenbucket.netlink.messages import LINK, attribute

KIND = "ifb"
NAME = "tokenbucket"


def is_ours(link: Link | None) -> bool:
    """Return whether an interface is tokenbucket's ifb device. The index alone does not show it."""
    return link is not None and (link.kind, link.name) == (KIND, NAME)


def ensure_ifb(connection: Connection, ifindex: int) -> None:
    """Create the device with this index, or set it up if it exists.

    Raises:
        UnsupportedError: the kernel has no ifb, or another interface has the index or the name.
        KernelError: the kernel rejects the request.
    """
    there = read_link(connection, ifindex)
    if there and not is_ours(there):
        raise UnsupportedError(f"interface {there.name} has the index {ifindex}")
    body = LINK.pack(0, 0, ifindex, uapi.IFF_UP, uapi.IFF_UP)
    kind = attribute(uapi.IFLA_LINKINFO, attribute(uapi.IFLA_INFO_KIND, f"{KIND}\0".encode()))
    name = attribute(uapi.IFLA_IFNAME, f"{NAME}\0".encode())
    request, flags = (body, 0) if there else (body + name + kind, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL)
    try:
        connection.change(uapi.RTM_NEWLINK, flags, request, f"ifb {ifindex}")
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise UnsupportedError("kernel: ifb is missing; load the module ifb") from error
        if error.errno in {errno.EEXIST, errno.EBUSY}:
            raise UnsupportedError(f"another interface has the name {NAME}") from error
        raise


def delete_ifb(connection: Connection, ifindex: int) -> None:
    """Delete the device with this index, if it is tokenbucket's. Raises KernelError."""
    if not is_ours(read_link(connection, ifindex)):
        return
    with IgnoreErrno(errno.ENODEV):
        connection.change(uapi.RTM_DELLINK, 0, LINK.pack(0, 0, ifindex, 0, 0), f"ifb {ifindex}")
