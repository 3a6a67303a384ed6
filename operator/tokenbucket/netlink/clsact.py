"""clsact, the qdisc that holds tokenbucket's filters."""

from __future__ import annotations

import errno

from tokenbucket.errors import IgnoreErrno, KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import TC, attributes, text

CLSACT = "clsact"
INGRESS = "ingress"
"""The older qdisc at the same parent. It has only the ingress hook."""


def kinds_at_clsact(connection: Connection) -> dict[int, str]:
    """Return the kind of the qdisc at ``TC_H_CLSACT``, ``clsact`` or ``ingress``, by interface.

    Reads all interfaces: the kernel answers ``RTM_GETQDISC`` for this parent by a multicast only.

    Raises:
        KernelError: the kernel rejects the request.
    """
    kinds = {}
    for message in connection.dump(uapi.RTM_GETQDISC, TC.pack(0, 0, 0, 0, 0), "qdiscs"):
        _, ifindex, _, parent, _ = TC.unpack_from(message.body)
        if parent == uapi.TC_H_CLSACT:
            kinds[ifindex] = text(attributes(message.body, TC.size).get(uapi.TCA_KIND, b""))
    return kinds


def ensure_clsact(connection: Connection, ifindex: int) -> str:
    """Add clsact unless it or an ingress qdisc exists. Return the kind that exists then.

    Raises:
        KernelError: the kernel rejects the request.
    """
    try:
        # "replace" leaves an existing clsact unchanged, and fails if a qdisc of another kind exists.
        connection.tc("replace", CLSACT, ifindex, f"interface {ifindex}")
    except KernelError as error:
        if error.errno == errno.EINVAL and kinds_at_clsact(connection).get(ifindex) == INGRESS:
            return INGRESS
        raise
    return CLSACT


def delete_clsact(connection: Connection, ifindex: int) -> None:
    """Remove clsact with all its filters, if it exists. Raises KernelError."""
    with IgnoreErrno(errno.ENOENT, errno.ENODEV, errno.EINVAL):
        connection.tc("del", CLSACT, ifindex, f"interface {ifindex}")
