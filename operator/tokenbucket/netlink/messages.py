"""Messages as pyroute2 carries them, without pyroute2's decoding.

pyroute2 0.9.7 would decode every attribute of every message, 0.2 ms a link; does not say that a dump was
interrupted or ended with an error; and has wrong types for IFA_TARGET_NETNSID and for a BPF filter's program.
These classes, put in place by its own means (``set_marshal``), keep a message as bytes and look only at what
is asked for.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from tokenbucket.netlink import uapi

HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length in bytes, type, flags, sequence number, port of the sender."""
LINK = struct.Struct("=BxHiII")
"""``struct ifinfomsg``: family, type, ifindex, flags, changed flags."""
ADDRESS = struct.Struct("=BBBBi")
"""``struct ifaddrmsg``: family, prefix length, flags, scope, ifindex."""
TC = struct.Struct("=BxxxiIII")
"""``struct tcmsg``: family, ifindex, handle, parent, info (priority and protocol for a filter)."""
RTGENMSG = struct.Struct("=Bxxx")
"""``struct rtgenmsg``, padded: family."""

_ATTRIBUTE = struct.Struct("=HH")
_ALIGNMENT = 4


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % _ALIGNMENT)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from ``offset`` on, by type; where a type occurs twice, the last."""
    found = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & uapi.NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + -length % _ALIGNMENT
    return found


def u32(payload: bytes | None) -> int | None:
    """Return the number in a ``u32`` attribute, or ``None`` if the attribute is missing."""
    return None if payload is None else int.from_bytes(payload[:4], sys.byteorder)


def s32(payload: bytes | None) -> int | None:
    """Return the number in an ``s32`` attribute, or ``None`` if the attribute is missing."""
    return None if payload is None else int.from_bytes(payload[:4], sys.byteorder, signed=True)


def text(payload: bytes) -> str:
    """A string attribute. Bytes that are not UTF-8 become escapes: a name may hold any."""
    return payload.split(b"\0", 1)[0].decode(errors="backslashreplace")


class Request(dict[str, Any]):
    """A request whose body is already encoded, in the shape that pyroute2 sends."""

    def __init__(self, kind: int, flags: int, body: bytes) -> None:
        super().__init__(header={"type": kind, "flags": flags})
        self._body = body
        self.data = b""

    def reset(self) -> None:
        """Nothing to do; pyroute2 asks for it."""

    def encode(self) -> None:
        """Puts the header, which pyroute2 has completed, before the body."""
        header = self["header"]
        length = HEADER.size + len(self._body)
        fields = (header["type"], header["flags"], header["sequence_number"], header["pid"])
        self.data = HEADER.pack(length, *fields) + self._body


class Message(dict[str, Any]):
    """A message from the kernel: ``body`` is what follows the header."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        super().__init__()
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        self["header"] = {
            "length": length,
            "type": kind,
            "flags": flags,
            "sequence_number": sequence,
            "pid": port,
            "error": None,
        }
        self.body = data[offset + HEADER.size : offset + length]

    def decode(self) -> None:
        """Nothing to do; pyroute2 asks for it."""


_PLAIN = {
    uapi.RTM_NEWLINK,
    uapi.RTM_NEWADDR,
    uapi.RTM_NEWQDISC,
    uapi.RTM_NEWTFILTER,
    uapi.RTM_NEWNSID,
    uapi.RTM_GETLINK,
    uapi.RTM_GETADDR,
    uapi.RTM_GETQDISC,
    uapi.RTM_GETTFILTER,
}


class Marshal(MarshalRtnl):  # type: ignore[misc] # pyroute2 has no types
    """Turns what the kernel sends into messages, and failed ends of dumps into errors."""

    msg_map = {**MarshalRtnl.msg_map, **dict.fromkeys(_PLAIN, Message)}  # noqa: RUF012 - pyroute2 copies it

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self, most: int = sys.maxsize) -> None:
        """A dump is about to begin, of which so many messages are wanted: the others are passed over."""
        self._left = most
        self.interrupted = False
        """Whether something changed while the dump came."""

    def parse_one_message(  # noqa: PLR0913 - pyroute2's signature
        self, key: int, flags: int, sequence_number: int, data: bytes, offset: int, length: int
    ) -> Any:  # noqa: ANN401 - a message of pyroute2 or one of ours
        """One message; ``None`` for one that is not wanted."""
        self.interrupted |= bool(flags & uapi.NLM_F_DUMP_INTR)
        if key == uapi.NLMSG_DONE:
            message = Message(data, offset)
            message["header"]["error"] = _error_at_end(message.body)
            return message
        if flags & uapi.NLM_F_MULTI:
            self._left -= 1
            if self._left < 0:
                return None
        return super().parse_one_message(key, flags, sequence_number, data, offset, length)


def _error_at_end(body: bytes) -> NetlinkError | None:
    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    return NetlinkError(-code) if code < 0 else None
