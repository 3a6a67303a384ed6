"""What the kernel tells those who watch: which object changed, and who changed it."""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tokenbucket.core.planning.hook import Hook
from tokenbucket.netlink import uapi
from tokenbucket.netlink.filters import HANDLE, PARENTS, PRIORITY
from tokenbucket.netlink.messages import ADDRESS, HEADER, LINK, RTGENMSG, TC, attributes, s32


class EventKind(enum.IntEnum):
    """What happened: message types of rtnetlink, and the loss of an unknown number of them."""

    OVERFLOW = 0
    NEW_LINK = uapi.RTM_NEWLINK
    DEL_LINK = uapi.RTM_DELLINK
    NEW_ADDRESS = uapi.RTM_NEWADDR
    DEL_ADDRESS = uapi.RTM_DELADDR
    NEW_QDISC = uapi.RTM_NEWQDISC
    DEL_QDISC = uapi.RTM_DELQDISC
    NEW_FILTER = uapi.RTM_NEWTFILTER
    DEL_FILTER = uapi.RTM_DELTFILTER
    NEW_NSID = uapi.RTM_NEWNSID
    DEL_NSID = uapi.RTM_DELNSID


LINKS = {EventKind.NEW_LINK, EventKind.DEL_LINK}
ADDRESSES = {EventKind.NEW_ADDRESS, EventKind.DEL_ADDRESS}
TRAFFIC_CONTROL = {EventKind.NEW_QDISC, EventKind.DEL_QDISC, EventKind.NEW_FILTER, EventKind.DEL_FILTER}
QDISCS = {EventKind.NEW_QDISC, EventKind.DEL_QDISC}
NSIDS = {EventKind.NEW_NSID, EventKind.DEL_NSID}

_KINDS = frozenset(EventKind)


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``nsid`` is the namespace in which it was, ``None`` for the watcher's own; for a change of
    the numbers themselves, the number.
    """

    kind: EventKind
    nsid: int | None = None
    ifindex: int = 0
    portid: int = 0
    """The socket that asked for the change, mostly the process's id; 0 for the kernel or unknown."""
    parent: int = 0
    handle: int = 0
    priority: int = 0

    @property
    def hook(self) -> Hook | None:
        """The hook that a filter's event is about."""
        return next((hook for hook, parent in PARENTS.items() if parent == self.parent), None)

    @property
    def removes_ours(self) -> bool:
        """Whether somebody removed a filter with our priority and handle, or all of clsact."""
        if self.nsid is not None:
            return False
        if self.kind is EventKind.DEL_QDISC:
            return self.handle == 0xFFFF0000
        # A handle of 0 is all filters of the priority.
        may_be_ours = self.priority == PRIORITY and self.handle in {HANDLE, 0}
        return self.kind is EventKind.DEL_FILTER and may_be_ours


def parse(data: bytes, nsid: int | None) -> Iterator[Event]:
    """The events of one datagram that came from the namespace of this number. Others are left out."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, portid = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return  # cut off
        if kind in _KINDS:
            yield from _event(EventKind(kind), data[offset + HEADER.size : offset + length], nsid, portid)
        offset += length + -length % 4


def _event(kind: EventKind, body: bytes, nsid: int | None, portid: int) -> Iterator[Event]:
    if kind in LINKS:
        family, _, ifindex, _, _ = LINK.unpack_from(body)
        if family != socket.AF_BRIDGE:  # a port joining or leaving a bridge, not an interface
            yield Event(kind, nsid, ifindex, portid)
    elif kind in ADDRESSES:
        yield Event(kind, nsid, ADDRESS.unpack_from(body)[4], portid)
    elif kind in TRAFFIC_CONTROL:
        _, ifindex, handle, parent, info = TC.unpack_from(body)
        yield Event(kind, nsid, ifindex, portid, parent, handle, info >> 16)
    elif kind in NSIDS and nsid is None:
        number = s32(attributes(body, RTGENMSG.size).get(uapi.NETNSA_NSID))
        if number is not None:
            yield Event(kind, number, 0, portid)
