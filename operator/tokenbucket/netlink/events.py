"""Events of rtnetlink: the object that changed, and the socket that changed it."""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink import uapi
from tokenbucket.netlink.addresses import Address, held_address
from tokenbucket.netlink.filters import HANDLES, PARENTS, PRIORITY
from tokenbucket.netlink.messages import HEADER, LINK, RTGENMSG, TC, attributes, s32


class EventKind(enum.IntEnum):
    """Kinds of events: message types of rtnetlink, and OVERFLOW for an unknown number of lost events."""

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
    """One change.

    ``nsid`` is the number of the namespace of the change, or ``None`` for the monitor's own namespace. For
    NEW_NSID and DEL_NSID, it is the number that was given or withdrawn.
    """

    kind: EventKind
    nsid: int | None = None
    ifindex: int = 0
    portid: int = 0
    """The port id of the socket that requested the change, mostly a process id; 0 for the kernel."""
    parent: int = 0
    handle: int = 0
    priority: int = 0
    address: Address | None = None
    """The address of an event of an address, unless it is a loopback or link-local address."""

    @property
    def hook(self) -> Hook | None:
        """The hook of a filter's event."""
        return next((hook for hook, parent in PARENTS.items() if parent == self.parent), None)

    @property
    def is_link_local(self) -> bool:
        """Whether the event is about an address by which no pod is found.

        Each new interface has such an event of IPv6, a second later.
        """
        return self.kind in ADDRESSES and self.address is None

    @property
    def removes_ours(self) -> bool:
        """Whether the change removed a filter with tokenbucket's priority and handle, or clsact."""
        if self.nsid is not None:
            return False
        if self.kind is EventKind.DEL_QDISC:
            return self.handle == 0xFFFF0000
        # Handle 0 stands for all filters of the priority.
        may_be_ours = self.priority == PRIORITY and self.handle in {*HANDLES, 0}
        return self.kind is EventKind.DEL_FILTER and may_be_ours


def parse(data: bytes, nsid: int | None) -> Iterator[Event]:
    """Yield the events in a datagram from namespace ``nsid``, without messages of other types."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, portid = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return  # truncated
        if kind in _KINDS:
            yield from _read(EventKind(kind), data[offset + HEADER.size : offset + length], nsid, portid)
        offset += length + -length % 4


def _read(kind: EventKind, body: bytes, nsid: int | None, portid: int) -> Iterator[Event]:
    try:
        yield from _event(kind, body, nsid, portid)
    except struct.error:  # too short: it may be about anything
        yield Event(EventKind.OVERFLOW)


def _event(kind: EventKind, body: bytes, nsid: int | None, portid: int) -> Iterator[Event]:
    if kind in LINKS:
        family, _, ifindex, _, _ = LINK.unpack_from(body)
        if family != socket.AF_BRIDGE:  # a port that joins or leaves a bridge
            yield Event(kind, nsid, ifindex, portid)
    elif kind in ADDRESSES:
        ifindex, address = held_address(body)
        yield Event(kind, nsid, ifindex, portid, address=address)
    elif kind in TRAFFIC_CONTROL:
        _, ifindex, handle, parent, info = TC.unpack_from(body)
        yield Event(kind, nsid, ifindex, portid, parent, handle, info >> 16)
    elif kind in NSIDS and nsid is None:
        number = s32(attributes(body, RTGENMSG.size).get(uapi.NETNSA_NSID))
        if number is not None:
            yield Event(kind, number, 0, portid)
