"""GSO packets are charged for the headers of each segment, for any headers and any segment size."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.header_chain import Chain, Header
from tests.bpf.test_exactness import EXAMPLES
from tokenbucket.core.limits import gcra

NOW_NS = 10**12
RATE, BURST_BYTES = 8 * 10**6, 10**7
STEPS_MAX = 12
"""``TB_HEADERS_MAX``."""
MOST_BYTES = 3500
IP4, IP6, TCP, UDP, ETH = Header("ip4"), Header("ip6"), Header("tcp", 3), Header("udp"), Header("eth")
CHAINS = {
    "IPv4 TCP": (IP4, TCP),
    "IPv6 UDP": (IP6, UDP),
    "IPv4 options": (Header("ip4", 10), TCP),
    "routing header": (IP6, Header("routing", 124), TCP),
    "hop-by-hop": (IP6, Header("hop"), TCP),
    "four extensions": (IP6, *(Header(kind, 5) for kind in ("hop", "options", "routing", "options")), UDP),
    "AH": (IP6, Header("ah", 3), TCP),
    "SCTP": (IP4, Header("sctp")),
    "VLAN stack": (Header("qinq"), Header("vlan"), Header("vlan"), IP6, TCP),
    "MPLS": (Header("mpls"), Header("mpls"), IP6, TCP),
    "MPLS, IPv4": (Header("mpls"), IP4, UDP),
    "IPIP": (IP4, IP4, TCP),
    "6in4": (IP4, IP6, Header("options", 9), TCP),
    "4in6": (IP6, Header("options"), IP4, UDP),
    "GRE": (IP4, Header("gre"), IP6, TCP),
    "GRE with all fields": (IP6, Header("gre", 3), ETH, Header("vlan"), IP4, TCP),
    "VXLAN": (IP4, Header("vxlan"), ETH, IP4, TCP),
    "VXLAN over IPv6": (IP6, Header("vxlan"), ETH, IP6, UDP),
    "VXLAN-GPE": (IP4, Header("gpe"), IP4, TCP),
    "VXLAN-GPE, IPv6": (IP6, Header("gpe"), IP6, UDP),
    "VXLAN-GPE, Ethernet": (IP4, Header("gpe"), ETH, IP6, TCP),
    "MPLS in UDP": (IP4, Header("mpls in udp"), IP4, TCP),
    "MPLS in UDP, IPv6": (IP6, Header("mpls in udp"), IP6, UDP),
    "Geneve": (IP4, Header("geneve", 15), ETH, IP6, TCP),
    "Geneve, IP": (IP6, Header("geneve"), IP4, TCP),
    "FOU": (IP4, Header("fou"), IP4, TCP),
    "GUE": (IP4, Header("gue", 2), IP6, TCP),
}
SIZES = [(3000, 1400), (2801, 1400), (2800, 1400), (1001, 88), (1500, 8), (9, 8)]
"""Bytes of payload, and bytes of each segment. The last segment is full, has one byte, or is in between."""


def payload(size: int) -> bytes:
    """Return bytes without a pattern."""
    return random.Random(size).randbytes(size)


def charged_bytes(machine: Machine, frame: bytes, **fields: int) -> int:
    """Return the cost of one packet in bytes."""
    machine.packet = frame
    machine.configure(config(bits_per_s=RATE, burst_bytes=BURST_BYTES))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, wire_len=0, **fields)
    burst_q = gcra.bytes_time_q(BURST_BYTES, RATE)
    word = machine.slots.meters(machine.index).bytes_tat
    return gcra.bytes_in(burst_q - gcra.tokens_q(word, gcra.word_of(NOW_NS), burst_q), RATE)


@pytest.mark.parametrize("segments_are_known", [True, False])
@pytest.mark.parametrize(("size", "gso_size"), SIZES)
@pytest.mark.parametrize("name", CHAINS)
def test_the_wire_size_is_exact(
    machine: Machine,
    ingress_machine: Machine,
    name: str,
    size: int,
    gso_size: int,
    *,
    segments_are_known: bool,
) -> None:
    """Check both hooks. The kernel's own length omits headers, and a raw socket sets no segments."""
    chain = Chain(CHAINS[name], payload(min(size, MOST_BYTES - 1200)))
    gso = {"gso_size": gso_size, "gso_segs": chain.segments(gso_size) if segments_are_known else 0}
    for each in (machine, ingress_machine):
        assert charged_bytes(each, chain.frame, **gso) == chain.wire_bytes(gso_size)
        assert each.slots.stats(each.index).conform_packets == chain.segments(gso_size)


@pytest.mark.parametrize(
    "headers",
    [
        (IP4, Header("esp")),
        (IP6, Header("ah"), Header("esp")),
        (IP6, *[Header("options")] * 12, Header("routing", 60), TCP),
        (*[Header("mpls")] * 4, IP4, Header("vxlan"), ETH, IP4, *[IP4] * 3, UDP),
    ],
    ids=["ESP", "AH and ESP", "long", "long in UDP"],
)
@pytest.mark.parametrize(("size", "gso_size"), SIZES)
def test_unknown_headers_count_in_full(
    machine: Machine, ingress_machine: Machine, headers: tuple[Header, ...], size: int, gso_size: int
) -> None:
    """Charge at least the wire size, and at most the last segment's payload more for each segment."""
    chain = Chain(headers, payload(min(size, MOST_BYTES - 1200)))
    segments, wire_bytes = chain.segments(gso_size), chain.wire_bytes(gso_size)
    for each in (machine, ingress_machine):
        charged = charged_bytes(each, chain.frame, gso_size=gso_size, gso_segs=segments)
        assert wire_bytes <= charged < wire_bytes + segments * gso_size
        assert charged_bytes(each, chain.frame, gso_size=gso_size) >= wire_bytes


def test_a_sender_cannot_hide_headers_behind_ports_or_payload(ingress_machine: Machine) -> None:
    """Take a payload for a tunnel only if the length in an inner IP header is right."""
    of_tunnels = (b"\x08\0\0\0", b"\0\0\x65\x58", b"\0\4", b"\0\0\1", b"\0\0\0\1")
    for start in (b"\x45\0", b"\x60\0", *of_tunnels, bytes(64)):
        chain = Chain((IP4, UDP), start + payload(1000))
        charged = charged_bytes(ingress_machine, chain.frame, gso_size=100, gso_segs=chain.segments(100))
        assert charged == chain.wire_bytes(100)


EXTENSIONS = st.lists(
    st.builds(Header, st.sampled_from(["hop", "routing", "options", "ah"]), st.integers(0, 40)), max_size=4
)
IP = st.one_of(
    st.builds(lambda words: (Header("ip4", words),), st.integers(0, 10)),
    EXTENSIONS.map(lambda extensions: (IP6, *extensions)),
)
TAGS = st.lists(st.sampled_from([Header("vlan"), Header("qinq")]), max_size=3).map(tuple)
LABELS = st.lists(st.just(Header("mpls")), min_size=1, max_size=4).map(tuple)
ETHERNET = TAGS.map(lambda tags: (ETH, *tags))


def geneve(words: int) -> tuple[Header, ...]:
    """Return a Geneve header with options."""
    return (Header("geneve", words),)


def gre(flags: int) -> tuple[Header, ...]:
    """Return a GRE header with optional fields."""
    return (Header("gre", flags),)


def joined(*parts: st.SearchStrategy[tuple[Header, ...]]) -> st.SearchStrategy[tuple[Header, ...]]:
    """Return the headers of all parts, one after another."""
    return st.tuples(*parts).map(lambda each: tuple(header for part in each for header in part))


NO_HEADER = st.just(())
TUNNELS = st.one_of(
    NO_HEADER,  # IP in IP
    LABELS,
    joined(st.builds(gre, st.integers(0, 3)), st.one_of(NO_HEADER, ETHERNET, LABELS)),
    joined(st.sampled_from([(Header("vxlan"),), (Header("gpe"),)]), ETHERNET),
    st.sampled_from([(Header("gpe"),), (Header("mpls in udp"),)]),
    joined(st.builds(geneve, st.integers(0, 63)), st.one_of(NO_HEADER, ETHERNET)),
    st.just((Header("fou"),)),
    st.builds(lambda words: (Header("gue", words),), st.integers(0, 31)),
)
TRANSPORTS = st.one_of(
    st.builds(Header, st.just("tcp"), st.integers(0, 10)),
    st.sampled_from([UDP, Header("sctp"), Header("esp")]),
)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Return a frame of at most MOST_BYTES with up to two tunnels. The payload looks like no header."""
    headers = draw(joined(st.one_of(TAGS, LABELS, joined(TAGS, LABELS)), IP))
    for _ in range(draw(st.integers(0, 2))):
        headers += draw(joined(TUNNELS, IP))
    headers += (draw(TRANSPORTS),)
    length = len(Chain(headers, b"").frame)
    assume(length < MOST_BYTES)
    return Chain(headers, b"\xff" * draw(st.integers(2, max(2, MOST_BYTES - length))))


@EXAMPLES
@given(chains(), st.integers(1, 1500), st.booleans(), st.booleans())
def test_no_chain_of_headers_is_charged_less_than_the_wire(
    machine: Machine,
    ingress_machine: Machine,
    chain: Chain,
    gso_size: int,
    at_ingress: bool,  # noqa: FBT001
    segments_are_known: bool,  # noqa: FBT001
) -> None:
    """The charge equals the wire size if the program knows all headers."""
    each = ingress_machine if at_ingress else machine
    segments, wire_bytes = chain.segments(gso_size), chain.wire_bytes(gso_size)
    charged = charged_bytes(
        each, chain.frame, gso_size=gso_size, gso_segs=segments if segments_are_known else 0
    )
    assert charged >= wire_bytes
    assert each.slots.stats(each.index).conform_packets >= segments
    if chain.steps <= STEPS_MAX and chain.headers[-1].kind != "esp":
        assert charged == wire_bytes
    elif segments_are_known:
        assert charged < wire_bytes + segments * gso_size
