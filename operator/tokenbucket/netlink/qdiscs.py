"""Queueing disciplines of interfaces."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tokenbucket.errors import KernelError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import TC, Message, attributes, text

CLSACT = "clsact"
INGRESS = "ingress"
"""The older qdisc that goes in the same place. It has only one hook."""


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline."""

    ifindex: int
    kind: str
    handle: int
    parent: int


def read_qdiscs(connection: Connection) -> tuple[Qdisc, ...]:
    """The qdiscs of all interfaces. Raises KernelError."""
    return tuple(
        _qdisc(message) for message in connection.dump(uapi.RTM_GETQDISC, TC.pack(0, 0, 0, 0, 0), "qdiscs")
    )


def kinds_at_clsact(connection: Connection) -> dict[int, str]:
    """What is in clsact's place, ``clsact`` or ``ingress``, by interface. Raises KernelError.

    All at once: the kernel does not answer a request for this one qdisc, but tells all who watch.
    """
    return {
        qdisc.ifindex: qdisc.kind for qdisc in read_qdiscs(connection) if qdisc.parent == uapi.TC_H_CLSACT
    }


def ensure_clsact(connection: Connection, ifindex: int) -> str:
    """Adds clsact where nothing is in its place. Returns what is there then: ``clsact`` or ``ingress``.

    Raises KernelError.
    """
    try:
        # Changes nothing in a clsact that exists, and is refused by a qdisc of another kind.
        connection.tc("replace", CLSACT, ifindex, f"interface {ifindex}")
    except KernelError as error:
        if error.errno == errno.EINVAL and kinds_at_clsact(connection).get(ifindex) == INGRESS:
            return INGRESS
        raise
    return CLSACT


def delete_clsact(connection: Connection, ifindex: int) -> None:
    """Removes clsact with all filters in it. Fine where there is none, or ingress. Raises KernelError."""
    try:
        connection.tc("del", CLSACT, ifindex, f"interface {ifindex}")
    except KernelError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:
            raise


def _qdisc(message: Message) -> Qdisc:
    _, ifindex, handle, parent, _ = TC.unpack_from(message.body)
    return Qdisc(ifindex, text(attributes(message.body, TC.size).get(uapi.TCA_KIND, b"")), handle, parent)
