"""Queueing disciplines of interfaces."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import TC, Message, attributes, text

CLSACT = "clsact"
CLSACT_PARENT = 0xFFFFFFF1
"""Where clsact goes, and the older qdisc named ingress, which excludes it."""

_RTM_GETQDISC = 38
_TCA_KIND = 1


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline."""

    ifindex: int
    kind: str
    handle: int
    parent: int


def read_qdiscs(connection: Connection) -> tuple[Qdisc, ...]:
    """The qdiscs of all interfaces. Raises KernelError."""
    return tuple(_qdisc(message) for message in connection.dump(_RTM_GETQDISC, TC.pack(0, 0, 0, 0, 0), "qdiscs"))


def kinds_at_clsact(connection: Connection) -> dict[int, str]:
    """What is in clsact's place, ``clsact`` or ``ingress``, by interface; all at once, because some kernels
    leave a request for this one qdisc without an answer. Raises KernelError.
    """
    return {qdisc.ifindex: qdisc.kind for qdisc in read_qdiscs(connection) if qdisc.parent == CLSACT_PARENT}


def add_clsact(connection: Connection, ifindex: int) -> bool:
    """Adds clsact, where nothing is in its place. Returns whether it was added. Raises KernelError."""
    try:
        connection.tc("add", CLSACT, ifindex, f"interface {ifindex}")
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def delete_clsact(connection: Connection, ifindex: int) -> None:
    """Removes clsact with all filters in it. Fine where there is none. Raises KernelError."""
    try:
        connection.tc("del", CLSACT, ifindex, f"interface {ifindex}")
    except KernelError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:
            raise


def _qdisc(message: Message) -> Qdisc:
    _, ifindex, handle, parent, _ = TC.unpack_from(message.body)
    return Qdisc(ifindex, text(attributes(message.body, TC.size).get(_TCA_KIND, b"")), handle, parent)
