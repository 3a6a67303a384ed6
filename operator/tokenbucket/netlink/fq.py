"""tokenbucket's queue: an fq root qdisc that holds packets until their departure time.

Its handle identifies it. The kernel's default qdisc has no handle. Any other root qdisc is foreign, and
tokenbucket never changes it.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from tokenbucket.errors import IgnoreErrno, KernelError, UnsupportedError
from tokenbucket.netlink import uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.messages import TC, Message, attribute, attributes, text, u32

FQ = "fq"
HANDLE = 0x7462_0000

_LOOPBACK = 1
_HORIZON_US = 2 * 60 * 10**6
"""Longer than a packet waits: at 8 kbit/s a minute, more only with a burst of minutes of the rate. It also
bounds the time for which a queue that has no filter yet, or no more, holds packets of SO_TXTIME. Since Linux
kernel commit 39d010504e6b ("net_sched: sch_fq: add horizon attribute") (in v5.7) fq drops packets with a
later departure time. The default is 10 s."""
_FLOWS_OF_FORWARDED_PACKETS = 1 << 16
"""fq holds forwarded packets in a flow for each hash of their addresses and ports, modulo this number. Before
Linux 6.7, a small packet waits in its flow behind bulk with the same hash. The default is 1,024. A flow takes
128 bytes while it is in use."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root qdisc that is not the kernel's default."""

    ifindex: int
    kind: str
    handle: int
    held: int
    """Queued packets."""
    horizon_us: int = 0
    """``TCA_FQ_HORIZON`` in microseconds; 0 for other kinds."""

    @property
    def ours(self) -> bool:
        """Whether tokenbucket added the qdisc."""
        return self.kind == FQ and self.handle == HANDLE

    def __str__(self) -> str:
        return f"{self.kind} qdisc, handle {self.handle >> 16:x}:"


def read_roots(connection: Connection) -> dict[int, Root]:
    """Return the root qdiscs that are not the kernel's default, by interface. Raises KernelError."""
    messages = connection.dump(uapi.RTM_GETQDISC, TC.pack(0, 0, 0, 0, 0), "qdiscs")
    roots = (_root(message) for message in messages)
    return {root.ifindex: root for root in roots if root}


def has_fq(connection: Connection) -> bool:
    """Return whether the kernel has fq, and load its module if necessary.

    The request has an invalid size table. The kernel rejects it after it has looked for the kind, so the
    request changes nothing.

    Raises:
        KernelError: the kernel rejects the request for another cause.
    """
    body = TC.pack(0, _LOOPBACK, HANDLE, uapi.TC_H_ROOT, 0) + attribute(uapi.TCA_KIND, b"fq\0")
    body += attribute(uapi.TCA_STAB, attribute(uapi.TCA_STAB_BASE, b""))
    try:
        connection.change(uapi.RTM_NEWQDISC, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, body, "probe for fq")
    except KernelError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL, errno.ERANGE, errno.EEXIST}:
            return error.errno != errno.ENOENT
        raise
    return True


def add_fq(connection: Connection, ifindex: int, packets: int) -> None:
    """Add the queue, or change its size and keep the queued packets.

    ``packets`` is the size, in total and for one flow. The bucket bounds the bytes before.

    Raises:
        UnsupportedError: the kernel has no fq, or the interface has a foreign root qdisc.
        KernelError: the kernel rejects the request.
    """
    size = struct.pack("=I", packets)
    options = (
        attribute(uapi.TCA_FQ_PLIMIT, size)
        + attribute(uapi.TCA_FQ_FLOW_PLIMIT, size)
        + attribute(uapi.TCA_FQ_ORPHAN_MASK, struct.pack("=I", _FLOWS_OF_FORWARDED_PACKETS - 1))
        + _horizon(_HORIZON_US, drop=True)
    )
    try:
        there = read_roots(connection).get(ifindex)
        _set(connection, ifindex, uapi.NLM_F_REPLACE if there and there.ours else uapi.NLM_F_CREATE, options)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise UnsupportedError("kernel: fq is missing; load the module sch_fq") from error
        if error.errno == errno.EEXIST:
            raise UnsupportedError(f"interface {ifindex}: has a foreign root qdisc; remove it") from error
        raise


def remove_fq(connection: Connection, ifindex: int, *, at_once: bool = False) -> bool:
    """Remove the queue if it is empty, which restores the kernel's default. Return whether it is gone.

    With ``at_once``, the queue is removed even if it has packets, which are lost. Otherwise a queue with
    packets gets a horizon of 0: new packets leave immediately. No filter bounds departure times any more,
    so one sender could fill the queue up to the horizon.

    Raises:
        KernelError: the kernel rejects the request.
    """
    there = read_roots(connection).get(ifindex)
    if not there or not there.ours:
        return True
    with IgnoreErrno(errno.ENOENT, errno.ENODEV):
        if there.held and not at_once:
            if there.horizon_us:  # once: each change causes an event
                _set(connection, ifindex, 0, _horizon(0, drop=False))
            return False
        connection.change(
            uapi.RTM_DELQDISC, 0, TC.pack(0, ifindex, HANDLE, uapi.TC_H_ROOT, 0), f"fq of interface {ifindex}"
        )
    return True


def _set(connection: Connection, ifindex: int, flags: int, options: bytes) -> None:
    body = TC.pack(0, ifindex, HANDLE, uapi.TC_H_ROOT, 0)
    body += attribute(uapi.TCA_KIND, b"fq\0") + attribute(uapi.TCA_OPTIONS, options)
    connection.change(uapi.RTM_NEWQDISC, flags, body, f"fq of interface {ifindex}")


def _horizon(us: int, *, drop: bool) -> bytes:
    """Return the attributes of a horizon in microseconds.

    Packets with a later departure time are dropped, or leave at the horizon.
    """
    return attribute(uapi.TCA_FQ_HORIZON, struct.pack("=I", us)) + attribute(
        uapi.TCA_FQ_HORIZON_DROP, struct.pack("=B", drop)
    )


def _root(message: Message) -> Root | None:
    _, ifindex, handle, parent, _ = TC.unpack_from(message.body)
    if parent != uapi.TC_H_ROOT or handle == 0:
        return None
    found = attributes(message.body, TC.size)
    queue = attributes(found.get(uapi.TCA_STATS2, b"")).get(uapi.TCA_STATS_QUEUE)
    kind = text(found.get(uapi.TCA_KIND, b""))
    options = attributes(found.get(uapi.TCA_OPTIONS, b"")) if kind == FQ else {}
    return Root(ifindex, kind, handle, u32(queue) or 0, u32(options.get(uapi.TCA_FQ_HORIZON)) or 0)
