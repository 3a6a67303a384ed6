"""Netlink messages as bytes, for pyroute2's request loop.

pyroute2 0.9.7 decodes every attribute of every message, which takes 0.2 ms per interface. It does not report
that a dump was interrupted or ended with an error, and has wrong types for ``IFA_TARGET_NETNSID`` and
``TCA_BPF_ID``. The classes of this module, installed by ``set_marshal``, keep a message as bytes, and the
readers decode only the attributes that they need.
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

_LONGEST = max(LINK.size, ADDRESS.size, TC.size, RTGENMSG.size)
_ATTRIBUTE = struct.Struct("=HH")
_ALIGNMENT = 4


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, ``struct nlattr``, with padding."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % _ALIGNMENT)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the payloads of the attributes after ``offset``, by type. The last of a type counts."""
    found = {}
    unpack, head, mask, last = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size, uapi.NLA_TYPE_MASK, len(data)
    while offset + head <= last:  # 40 times for each interface
        length, kind = unpack(data, offset)
        if length < head:
            break
        found[kind & mask] = data[offset + head : offset + length]
        offset += length + -length % _ALIGNMENT
    return found


def u32(payload: bytes | None) -> int | None:
    """Return the number in a ``u32`` attribute, or ``None`` if the attribute is missing."""
    return None if payload is None else int.from_bytes(payload[:4], sys.byteorder)


def s32(payload: bytes | None) -> int | None:
    """Return the number in an ``s32`` attribute, or ``None`` if the attribute is missing."""
    return None if payload is None else int.from_bytes(payload[:4], sys.byteorder, signed=True)


def text(payload: bytes) -> str:
    """Return a string attribute. Bytes that are not UTF-8 become escapes, because names may contain any."""
    return payload.split(b"\0", 1)[0].decode(errors="backslashreplace")


class Request(dict[str, Any]):
    """A request with an encoded body, as pyroute2 sends it."""

    def __init__(self, kind: int, flags: int, body: bytes) -> None:
        super().__init__(header={"type": kind, "flags": flags})
        self._body = body
        self.data = b""

    def reset(self) -> None:
        """Do nothing; pyroute2 calls this method."""

    def encode(self) -> None:
        """Encode the header, which pyroute2 has completed, and the body into ``data``."""
        header = self["header"]
        length = HEADER.size + len(self._body)
        fields = (header["type"], header["flags"], header["sequence_number"], header["pid"])
        self.data = HEADER.pack(length, *fields) + self._body


class Message(dict[str, Any]):
    """A message from the kernel. ``body`` follows the header.

    Zeros extend a body that is too short for its struct, so that a torn message describes no object.
    """

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
        self.body = data[offset + HEADER.size : offset + length].ljust(_LONGEST, b"\0")

    def decode(self) -> None:
        """Do nothing; pyroute2 calls this method."""


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
    """Parses messages of the kernel, and converts the error at the end of a dump to NetlinkError."""

    msg_map = {**MarshalRtnl.msg_map, **dict.fromkeys(_PLAIN, Message)}  # noqa: RUF012 - pyroute2 copies it

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self, most: int = sys.maxsize) -> None:
        """Prepare for a dump, of which at most ``most`` messages are kept."""
        self._left = most
        self.interrupted = False
        """Whether a message had ``NLM_F_DUMP_INTR``."""

    def parse_one_message(  # noqa: PLR0913 - pyroute2's signature
        self, key: int, flags: int, sequence_number: int, data: bytes, offset: int, length: int
    ) -> Any:  # noqa: ANN401 - a Message, or a message of pyroute2
        """Return one message, or ``None`` to discard it."""
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
    code = struct.unpack_from("=i", body)[0]
    return NetlinkError(-code) if code < 0 else None
