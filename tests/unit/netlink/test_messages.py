"""Parsing of netlink messages with any content. A short or torn message must not end the agent."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.netlink import addresses, clsact, filters, fq, links, uapi
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.events import Event, EventKind, parse
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.messages import HEADER, Message, attribute, attributes

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
def test_any_body_of_an_event_is_parsed(messages: list[bytes], nsid: int | None) -> None:
    """Treat an unreadable body as any change."""
    assert all(isinstance(event, Event) for event in parse(b"".join(messages), nsid))


@given(st.binary(max_size=200), st.none() | st.integers(0, 9))
def test_any_bytes_of_a_datagram_are_parsed(data: bytes, nsid: int | None) -> None:
    """Expect a datagram that the socket has truncated."""
    list(parse(data, nsid))
    attributes(data)


@given(st.builds(message, _KINDS, _BODY, st.integers(0, 2**32 - 1)))
def test_a_wrong_length_ends_the_datagram(data: bytes) -> None:
    list(parse(data, None))


def test_an_event_that_cannot_be_read_is_not_lost() -> None:
    """Read everything again."""
    assert list(parse(message(uapi.RTM_NEWLINK, b""), None)) == [Event(EventKind.OVERFLOW)]


class Answers(Connection):
    """A connection to a kernel that answers each request with the same messages."""

    def __init__(self, bodies: list[bytes]) -> None:
        """Create a connection without a socket."""
        self._messages = [Message(message(0, body)) for body in bodies]

    def dump(self, kind: int, body: bytes, subject: str) -> list[Message]:
        """Return the messages."""
        del kind, body, subject
        return self._messages

    def dump_partial(self, kind: int, body: bytes, subject: str, most: int) -> list[Message]:
        """Return the messages."""
        return self.dump(kind, body, subject)[:most]

    def get(self, kind: int, body: bytes, subject: str) -> Message:
        """Return the first message."""
        return self.dump(kind, body, subject)[0]


def qdisc(ifindex: int, kind: bytes, options: bytes) -> bytes:
    """Return the body of a root qdisc with options of any length."""
    head = struct.pack("=BxxxiIII", 0, ifindex, 0x80010000, uapi.TC_H_ROOT, 0)
    stats = attribute(uapi.TCA_STATS2, attribute(uapi.TCA_STATS_QUEUE, options))
    return head + attribute(uapi.TCA_KIND, kind) + stats + attribute(uapi.TCA_OPTIONS, options)


_QDISC = st.builds(qdisc, st.integers(1, 9), st.sampled_from([b"fq", b"tbf"]), st.binary(max_size=9))
_FILTER = st.builds(
    lambda head, kind, options: head + attribute(uapi.TCA_KIND, kind) + options,
    st.binary(min_size=20, max_size=20),
    st.just(b"bpf"),
    st.builds(lambda data: attribute(uapi.TCA_OPTIONS, b"".join(data)), st.lists(_ATTRIBUTE, max_size=4)),
)
_LINK = st.builds(
    lambda head, stats: head + attribute(uapi.IFLA_STATS64, stats),
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=20),
)


@given(st.lists(_BODY | _QDISC | _FILTER | _LINK, min_size=1, max_size=4))
def test_any_answer_of_the_kernel_is_parsed(bodies: list[bytes]) -> None:
    """Read torn messages as objects that do not exist."""
    connection = Answers(bodies)
    links.read_links(connection)
    links.read_links_of(connection, 1)
    links.read_link(connection, 1)
    links.read_traffic(connection, 1, 1)
    addresses.read_addresses(connection)
    addresses.read_addresses(connection, 1)
    fq.read_roots(connection)
    clsact.kinds_at_clsact(connection)
    found = Filters(connection).read_all()
    assert all(isinstance(each, filters.LinkFilters) for each in found.values())
