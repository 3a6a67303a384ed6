"""Messages of netlink with any content: a short or torn one must not end the agent."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.netlink import uapi
from tokenbucket.netlink.events import Event, EventKind, parse
from tokenbucket.netlink.messages import HEADER, attributes

_KINDS = st.sampled_from([kind for kind in EventKind if kind is not EventKind.OVERFLOW])
_ATTRIBUTE = st.builds(
    lambda kind, length, data: struct.pack("=HH", length, kind) + data,
    st.integers(0, 60),
    st.integers(0, 80),
    st.binary(max_size=40),
)
_BODY = st.builds(
    lambda head, rest: head + b"".join(rest), st.binary(max_size=24), st.lists(_ATTRIBUTE, max_size=5)
)


def message(kind: int, body: bytes, claimed: int | None = None) -> bytes:
    length = HEADER.size + len(body)
    return HEADER.pack(length if claimed is None else claimed, kind, 0, 0, 7) + body + bytes(-length % 4)


@given(st.lists(st.builds(message, _KINDS, _BODY), max_size=4), st.none() | st.integers(0, 9))
def test_no_body_of_an_event_raises(messages: list[bytes], nsid: int | None) -> None:
    """What cannot be read stands for any change."""
    assert all(isinstance(event, Event) for event in parse(b"".join(messages), nsid))


@given(st.binary(max_size=200), st.none() | st.integers(0, 9))
def test_no_bytes_raise(data: bytes, nsid: int | None) -> None:
    """The socket may truncate a datagram."""
    list(parse(data, nsid))
    attributes(data)


@given(st.builds(message, _KINDS, _BODY, st.integers(0, 2**32 - 1)))
def test_a_wrong_length_raises_nothing(data: bytes) -> None:
    """And ends the datagram."""
    list(parse(data, None))


def test_an_event_that_cannot_be_read_is_not_lost() -> None:
    """The agent then reads everything."""
    assert list(parse(message(uapi.RTM_NEWLINK, b""), None)) == [Event(EventKind.OVERFLOW)]
