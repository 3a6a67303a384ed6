"""Peers: a bucket for each remote prefix, in addition to the bucket of the pod."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bpf.bucket_machine import OWNER, Machine, config, context, fill
from tests.bpf.conftest import PROGRAMS, SIZES
from tests.bpf.model import DelayModel, Model, byte_meter, packet_meter
from tests.bpf.program_run import run_program
from tests.bpf.test_exactness import EXAMPLES, GAPS_NS, STARTS_NS, fitting_the_rate
from tests.bpf.test_mark import ipv4, ipv6
from tokenbucket.bpf import loader
from tokenbucket.bpf.peers import Peers
from tokenbucket.bpf.pins import PEERS, Pins, source_folder
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT, PeerConfig, Slot, SlotConfig

NOW_NS = 10**12
MS = 10**6
S = 10**9
FULL = 1514
MBIT = 10**6
WORD = 2**64
Address = IPv4Address | IPv6Address
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
TAGS = {"untagged": b"", "802.1Q": b"\x81\x00\x00\x06", "802.1ad": b"\x88\xa8\x00\x06\x81\x00\x00\x06"}
A, B, C = (ip_address(f"192.0.2.{last}") for last in (1, 2, 3))
ALICE, BOB = ip_address("2001:db8::1"), ip_address("2001:db8:0:1::1")
POD4, POD6 = ip_address("198.51.100.9"), ip_address("2001:db8:9::9")


def frame(peer: Address, *, is_destination: bool = False, tags: str = "untagged") -> bytes:
    """Return a full-size frame between a peer and the pod."""
    header = bytearray(ipv4(0) if peer.version == 4 else ipv6(0))
    first = 12 if peer.version == 4 else 8
    ends = [peer.packed, (POD4 if peer.version == 4 else POD6).packed]
    both = b"".join(reversed(ends) if is_destination else ends)
    header[first : first + len(both)] = both
    ethertype = IPV4 if peer.version == 4 else IPV6
    return (bytes(12) + TAGS[tags] + ethertype + bytes(header)).ljust(FULL, b"\0")


def peers(
    bits_per_s: int = 0, burst_bytes: int = 0, packets_per_s: int = 0, burst_packets: int = 0, **more: int
) -> PeerConfig:
    """Return the bucket of each peer, from rates and bursts in plain units."""
    plain = config(bits_per_s, burst_bytes, packets_per_s, burst_packets)
    return PeerConfig(
        plain.bits_per_s, plain.bytes_burst_q, plain.packets_per_s, plain.packets_burst_q, **more
    )


def ready(machine: Machine, per_peer: PeerConfig, **slot: int) -> None:
    """Configure a slot with peers, and fill all buckets."""
    machine.configure(config(per_peer=per_peer, **slot))
    machine.fill(NOW_NS)


def admitted(machine: Machine, peer: Address, count: int, now_ns: int = NOW_NS, **more: str) -> int:
    """Return how many of the packets of a peer pass."""
    machine.packet = frame(peer, **more)
    return sum(machine.offer(now_ns) for _ in range(count))


def tokens(machine: Machine) -> tuple[int, int]:
    """Return the tokens in the buckets of the slot, as times."""
    meters, now_q = machine.slots.meters(machine.index), gcra.word_of(NOW_NS)
    used = machine.slots.read()[machine.index].config
    return (
        gcra.tokens_q(meters.bytes_tat, now_q, used.bytes_burst_q),
        gcra.tokens_q(meters.packets_tat, now_q, used.packets_burst_q),
    )


@dataclass
class PeersModel:
    """A limit with peers. Each peer has the meters of its rates. The slot may have no meters."""

    slot: Model
    rates: dict[str, int]
    own: dict[Address, Model] = field(default_factory=dict)

    def offer(self, now_ns: int, peer: Address, size_bytes: int, segments: int) -> bool:
        """Decide on one packet, and charge it to all meters or to none."""
        own = self.own.setdefault(peer, model_of(**self.rates))
        used = [
            (meter, units)
            for model in (self.slot, own)
            for meter, units in ((model.bytes, size_bytes), (model.packets, segments))
            if meter
        ]
        if not all(meter.conforms(now_ns, units) for meter, units in used):
            return False
        for meter, units in used:
            meter.charge(now_ns, units)
        return True


def model_of(
    bits_per_s: int = 0, burst_bytes: int = 0, packets_per_s: int = 0, burst_packets: int = 0
) -> Model:
    """Return the model of a bucket."""
    return Model(
        byte_meter(bits_per_s, burst_bytes) if bits_per_s else None,
        packet_meter(packets_per_s, burst_packets) if packets_per_s else None,
    )


@st.composite
def rates(draw: st.DrawFn, *, may_be_none: bool) -> dict[str, int]:
    """Generate a bucket of bytes, of packets, of both, or none."""
    bits, packets = draw(st.integers(8_000, 10**11)), draw(st.integers(1, 10**8))
    both = (
        {"bits_per_s": bits, "burst_bytes": fitting_the_rate(bits, draw(st.integers(64, 2**22)))},
        {
            "packets_per_s": packets,
            "burst_packets": min(draw(st.integers(1, 10**4)), packets * 86_400),
        },
    )
    choices = [both[0], both[1], both[0] | both[1]] + ([{}] if may_be_none else [])
    return dict(draw(st.sampled_from(choices)))


OFFERS = st.lists(
    st.tuples(
        st.one_of(GAPS_NS, st.integers(0, 10**7)),
        st.sampled_from([A, B, ALICE, BOB]),
        st.sampled_from([(60, 1), (512, 1), (1514, 1), (9014, 7), (65_536, 44)]),
    ),
    min_size=1,
    max_size=60,
)


@EXAMPLES
@given(rates(may_be_none=True), rates(may_be_none=False), STARTS_NS, OFFERS)
def test_every_decision_matches_the_model(
    machine: Machine,
    slot: dict[str, int],
    own: dict[str, int],
    start_ns: int,
    offers: list[tuple[int, Address, tuple[int, int]]],
) -> None:
    """Check any two buckets in a chain, with peers that come and go, at any uptime."""
    ready(machine, peers(**own), **slot)
    machine.fill(start_ns)
    model = PeersModel(model_of(**slot), own)
    now_ns = start_ns
    for gap_ns, peer, (size, segments) in offers:
        now_ns += gap_ns
        machine.packet = frame(peer)
        assert machine.offer(now_ns, size, segments) == model.offer(now_ns, peer, size, segments)


@EXAMPLES
@given(rates(may_be_none=False), rates(may_be_none=False), STARTS_NS, OFFERS, st.integers(5 * MS, S))
def test_every_departure_is_the_later_of_both(
    machine: Machine,
    slot: dict[str, int],
    own: dict[str, int],
    start_ns: int,
    offers: list[tuple[int, Address, tuple[int, int]]],
    max_delay_ns: int,
) -> None:
    """The departure equals that of one limit with the meters of both buckets."""
    ready(machine, peers(**own), max_delay_q=max_delay_ns * gcra.QUANTA_PER_NS, **slot)
    machine.fill(start_ns)
    shared, models = model_of(**slot), {peer: model_of(**own) for peer in (A, B, ALICE, BOB)}
    model = DelayModel(shared.bytes, shared.packets, max_delay_ns)
    now_ns = start_ns
    for gap_ns, peer, (size, segments) in offers:
        now_ns += gap_ns
        machine.packet = frame(peer)
        waits = model.offer(now_ns, size, segments, models[peer])
        assert machine.offer(now_ns, size, segments) == (waits is not None)
        if waits is not None:
            assert machine.departs_ns == (now_ns + waits if waits else 0)


@pytest.mark.parametrize(("first", "second"), [(A, B), (ALICE, BOB), (A, ALICE)])
def test_peers_are_independent(machine: Machine, first: Address, second: Address) -> None:
    """The traffic of one peer takes no tokens of another peer."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, first, 20) == 5
    assert admitted(machine, second, 20) == 5
    assert admitted(machine, first, 20, NOW_NS + 2 * S) == 2


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("peer", [A, ALICE], ids=["IPv4", "IPv6"])
def test_a_tag_does_not_change_the_peer(machine: Machine, peer: Address, tags: str) -> None:
    """A VLAN tag does not hide an address."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, peer, 3) == 3
    assert admitted(machine, peer, 20, tags=tags) == 2
    assert machine.slots.stats(machine.index).shared_peer_packets == 0


@pytest.mark.parametrize(
    ("prefixes", "same", "other"),
    [
        ({}, ("192.0.2.1", "192.0.2.1"), "192.0.2.2"),
        ({"ipv4_prefix_length": 24}, ("192.0.2.1", "192.0.2.200"), "192.0.3.1"),
        ({"ipv4_prefix_length": 1}, ("1.2.3.4", "127.0.0.1"), "128.0.0.1"),
        ({}, ("2001:db8::1", "2001:db8::2:0:0:1"), "2001:db8:0:1::1"),
        ({"ipv6_prefix_length": 128}, ("2001:db8::1", "2001:db8::1"), "2001:db8::2"),
        ({"ipv6_prefix_length": 67}, ("2001:db8::1", "2001:db8::1fff:0:0:1"), "2001:db8::2000:0:0:1"),
        ({"ipv6_prefix_length": 56}, ("2001:db8::1", "2001:db8:0:ff::1"), "2001:db8:0:100::1"),
    ],
)
def test_a_prefix_is_one_peer(
    machine: Machine, prefixes: dict[str, int], same: tuple[str, str], other: str
) -> None:
    """The default prefix is one IPv4 address or an IPv6 /64. A limit may specify other lengths."""
    ready(machine, peers(packets_per_s=1, burst_packets=5, **prefixes))
    assert [admitted(machine, ip_address(each), 3) for each in same] == [3, 2]
    assert admitted(machine, ip_address(other), 3) == 3


@pytest.mark.parametrize("hook", ["machine", "ingress_machine"])
@pytest.mark.parametrize("is_destination", [False, True])
def test_the_direction_is_the_slots_not_the_hooks(
    request: pytest.FixtureRequest, hook: str, *, is_destination: bool
) -> None:
    """The remote address identifies the peer. The pod's address does not."""
    machine = request.getfixturevalue(hook)
    ready(machine, peers(packets_per_s=1, burst_packets=2, is_destination=is_destination))
    for peer in (A, ALICE):
        assert admitted(machine, peer, 5, is_destination=is_destination) == 2
    assert admitted(machine, B, 5, is_destination=is_destination) == 2
    assert admitted(machine, C, 5, is_destination=not is_destination) == 2
    assert admitted(machine, A, 5, is_destination=not is_destination) == 0


@pytest.mark.parametrize("peer", [A, ALICE], ids=["IPv4", "IPv6"])
def test_fragments_count_for_the_peer_that_sends_them(machine: Machine, peer: Address) -> None:
    """Later fragments have addresses but no ports, and count too."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, peer, 3) == 3
    later = bytearray(frame(peer))
    if peer.version == 4:
        later[20:22] = b"\x20\xb9"
    else:
        later[20], later[54:62] = 44, b"\x11\x00\x05\xc8\x00\x00\x00\x07"
    machine.packet = bytes(later)
    assert [machine.offer(NOW_NS) for _ in range(4)] == [True, True, False, False]


NO_ADDRESS = {
    "ARP": bytes(12) + b"\x08\x06" + bytes(100),
    "a header cut short": bytes(12) + TAGS["802.1Q"] + IPV4 + ipv4(0)[:14],
    "three tags": bytes(12) + 3 * b"\x81\x00\x00\x06" + IPV4 + ipv4(0) + bytes(80),
}


@pytest.mark.parametrize("kind", NO_ADDRESS)
def test_packets_without_an_address_share_one_bucket(machine: Machine, kind: str) -> None:
    """These packets share the rate of one peer. They are limited, and they use no tokens of other peers."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    machine.packet = NO_ADDRESS[kind]
    assert sum(machine.offer(NOW_NS) for _ in range(20)) == 5
    assert machine.slots.stats(machine.index).shared_peer_packets == 5
    assert admitted(machine, A, 20) == 5


def test_a_flood_of_one_peer_takes_no_tokens_of_others(machine: Machine) -> None:
    """Packets that the peer's bucket rejects are not charged to the pod's bucket."""
    ready(machine, peers(packets_per_s=1, burst_packets=5), packets_per_s=100, burst_packets=100)
    assert admitted(machine, A, 1000) == 5
    assert [admitted(machine, ip_address(f"192.0.3.{n}"), 5) for n in range(19)] == [5] * 19
    stats = machine.slots.stats(machine.index)
    assert (stats.conform_packets, stats.peer_too_fast_packets) == (100, 995)


def test_packets_that_the_pods_bucket_rejects_are_not_charged_to_the_peer(machine: Machine) -> None:
    """Such packets create no entry for the peer. The entry starts when the pod's bucket admits a packet."""
    ready(machine, peers(packets_per_s=1, burst_packets=50), packets_per_s=10, burst_packets=10)
    assert admitted(machine, A, 20) == 10
    assert admitted(machine, B, 1000) == 0
    assert admitted(machine, B, 100, NOW_NS + S) == 10
    assert admitted(machine, A, 100, NOW_NS + 2 * S) == 10


@pytest.mark.parametrize("refusing", ["peer", "slot"])
def test_a_rejected_packet_is_charged_to_no_meter(machine: Machine, pins: Pins, refusing: str) -> None:
    """If either bucket rejects a packet, none of the four meters is charged."""
    wide = {"bits_per_s": 10**9, "burst_bytes": 10**6, "packets_per_s": 10**6, "burst_packets": 1000}
    narrow = wide | {"packets_per_s": 1, "burst_packets": 3}
    own, slot = (narrow, wide) if refusing == "peer" else (wide, narrow)
    ready(machine, peers(**own), **slot)
    assert admitted(machine, A, 3) == 3
    before, of_peer = machine.slots.meters(machine.index), entries(machine, pins)
    assert admitted(machine, A, 10) == 0
    assert machine.slots.meters(machine.index) == before
    assert entries(machine, pins) == of_peer


def entries(machine: Machine, pins: Pins) -> dict[str, tuple[int, int]]:
    """Return the peers of the slot and their meters."""
    with Peers(pins) as opened:
        found = opened.of(machine.index, machine.slots.peers_epoch(machine.index))
        return {str(peer): (peer.bytes_tat, peer.packets_tat) for peer in found}


def test_entries_name_the_prefixes_of_peers(machine: Machine, pins: Pins) -> None:
    """Return the prefixes of the peers of one slot only."""
    ready(machine, peers(packets_per_s=1, burst_packets=5, ipv4_prefix_length=24))
    for peer in (A, B, ALICE):
        admitted(machine, peer, 1)
    assert entries(machine, pins).keys() == {"192.0.2.0/24", "2001:db8::/64"}
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert entries(machine, pins) == {}
    admitted(machine, A, 1)
    assert entries(machine, pins).keys() == {"192.0.2.1"}


def test_the_next_owner_of_a_slot_has_new_peers(machine: Machine) -> None:
    """A freed slot passes no used tokens of peers to its next owner."""
    limit = config(per_peer=peers(packets_per_s=1, burst_packets=5))
    machine.configure(limit)
    assert admitted(machine, A, 20) == 5
    machine.slots.free(machine.index)
    machine.configure(limit)
    assert admitted(machine, A, 20) == 5


def test_a_new_rate_leaves_the_peers_as_they_are(machine: Machine) -> None:
    """A change of the configuration does not fill an empty bucket."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, A, 20) == 5
    machine.change(config(per_peer=peers(packets_per_s=2, burst_packets=50)), NOW_NS)
    assert admitted(machine, A, 20) == 0
    assert admitted(machine, A, 20, NOW_NS + S) == 2


def test_slots_do_not_share_peers(machine: Machine, ingress_machine: Machine) -> None:
    """Both slots use the same map."""
    for each in (machine, ingress_machine):
        ready(each, peers(packets_per_s=1, burst_packets=5))
        assert admitted(each, A, 20) == 5


def test_forged_addresses_get_no_more_than_the_pod_has(machine: Machine) -> None:
    """All forged addresses together get the tokens of the pod's bucket. The map has room for a tenth of
    them.

    A known peer keeps its entry, because the map replaces entries only at the rate of admitted packets.
    """
    ready(machine, peers(packets_per_s=1, burst_packets=5), packets_per_s=100, burst_packets=100)
    assert admitted(machine, A, 20) == 5
    passed = 0
    for number in range(10 * SIZES.peers):
        machine.packet = frame(ip_address(0x0A00_0000 + number))
        passed += machine.offer(NOW_NS)
    assert passed == 95
    assert admitted(machine, A, 20, NOW_NS + S) == 1


@pytest.fixture(scope="module")
def without_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pins, int]]:
    """Provide the program on a map that rejects entries. The shipped LRU map seldom does."""
    pins = Pins(Path(f"/sys/fs/bpf/bpf_rung_peers_{os.getpid()}"))
    pins.maps.mkdir(parents=True)
    full = loader.compiled(PROGRAMS / "full_peers.c", source_folder(), pins.maps, SIZES)
    program = loader.compiled(PROGRAMS / "clocked.c", source_folder(), pins.maps, SIZES)
    (pins.maps / PEERS).unlink()
    yield pins, program.load_func(b"clocked_egress", 3).fd
    pins.remove()
    del full


@pytest.fixture
def refusing(without_room: tuple[Pins, int]) -> Iterator[Machine]:
    """Provide the program with the full map, on a slot of its own."""
    pins, program_fd = without_room
    with Slots(pins) as slots:
        yield Machine(program_fd, slots)


def test_the_map_evicts_only_inactive_peers(machine: Machine, pins: Pins) -> None:
    """The map admits each new peer, and keeps the entries of active peers."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, A, 4) == 4
    for number in range(4 * SIZES.peers):
        assert admitted(machine, ip_address(0x0A00_0000 + number), 1) == 1
        if number % 100 == 0:
            admitted(machine, A, 1)
    assert admitted(machine, A, 1) == 0
    assert str(A) in entries(machine, pins)
    assert SIZES.peers // 2 < len(entries(machine, pins)) <= SIZES.peers
    assert machine.slots.stats(machine.index).shared_peer_packets == 0


def test_peers_are_limited_if_the_map_rejects_entries(refusing: Machine) -> None:
    """Peers without an entry share the rate of one peer. Peers with an entry keep their buckets."""
    ready(refusing, peers(packets_per_s=1, burst_packets=5))
    known = [ip_address(f"192.0.2.{n}") for n in range(4)]
    assert [admitted(refusing, peer, 20) for peer in known] == [5] * 4
    assert sum(admitted(refusing, ip_address(0x0A00_0000 + n), 1) for n in range(1000)) == 5
    assert sum(admitted(refusing, ip_address(0x0B00_0000 + n), 1, NOW_NS + S) for n in range(1000)) == 1
    assert refusing.slots.stats(refusing.index).shared_peer_packets == 6
    assert [admitted(refusing, peer, 20, NOW_NS + S) for peer in known] == [1] * 4


def test_cpus_do_not_multiply_a_peers_burst(machine: Machine, pins: Pins) -> None:
    """If several CPUs serve two peers at one instant, each bucket admits exactly its tokens."""
    own, whole, threads, repeat = 3_000, 5_000, 4, 40_000
    for _ in range(10):
        ready(
            machine,
            peers(bits_per_s=10**9, burst_bytes=2 * own * FULL, packets_per_s=1, burst_packets=own),
            bits_per_s=10**9,
            burst_bytes=2 * whole * FULL,
            packets_per_s=1,
            burst_packets=whole,
        )
        skb = context(NOW_NS, mark=machine.index, ingress_ifindex=1, wire_len=FULL)
        with ThreadPoolExecutor(threads) as pool:
            runs = [
                pool.submit(run_program, machine.program_fd, frame(peer), skb, repeat)
                for peer in (A, B) * (threads // 2)
            ]
            assert all(run.result() for run in runs)
        stats = machine.slots.stats(machine.index)
        assert stats.conform_packets == whole
        assert stats.conform_packets + stats.too_fast_packets == threads * repeat
        empty = gcra.packets_time_q(whole, 1)
        used = gcra.bytes_cost_q(FULL, 10**9) * whole
        burst_q = gcra.bytes_time_q(2 * whole * FULL, 10**9)
        assert tokens(machine) == (burst_q - used, gcra.packets_time_q(whole, 1) - empty)
        left = {
            peer: gcra.tokens_q(packets, gcra.word_of(NOW_NS), gcra.packets_time_q(own, 1))
            for peer, (_, packets) in entries(machine, pins).items()
        }
        assert sum(own - gcra.packets_in(each, 1) for each in left.values()) == whole
        assert min(left.values()) >= 0


@pytest.fixture
def live(compiled_by_bcc: Any, slots: Slots) -> Iterator[Machine]:
    """Provide the shipped entry point with the real clock, so that buckets are always nearly empty.

    A test run uses slot 0. Free the slot afterwards, because no limit may own it.
    """
    yield Machine(compiled_by_bcc.load_func(b"at_egress_hook", 3).fd, slots, index=NO_SLOT)
    slots.free(NO_SLOT)


SLOWER = 100_000
"""Packets per second. Any machine processes more."""
WHOLE = {"packets_per_s": SLOWER, "burst_packets": 60 * SLOWER}
"""The burst of a minute. The meter is never idle, so the change of its word equals the charges."""
BY_WHOM = {
    "the slot, later": config(max_delay_q=5 * MS * gcra.QUANTA_PER_NS, **WHOLE),
    "the slot, with peers": config(
        per_peer=PeerConfig(packets_per_s=1, packets_burst_q=10**6 * gcra.packets_cost_q(1, 1)), **WHOLE
    ),
    "the slot, with peers, later": config(
        max_delay_q=5 * MS * gcra.QUANTA_PER_NS,
        per_peer=PeerConfig(packets_per_s=1, packets_burst_q=10**6 * gcra.packets_cost_q(1, 1)),
        **WHOLE,
    ),
    "the peers": config(
        per_peer=PeerConfig(packets_per_s=SLOWER, packets_burst_q=8 * gcra.packets_cost_q(1, SLOWER)), **WHOLE
    ),
}


@pytest.mark.parametrize("refusing", BY_WHOM)
def test_charges_match_the_admitted_packets(live: Machine, pins: Pins, refusing: str) -> None:
    """Charges are exact to the quantum if several CPUs use a nearly empty bucket.
    A CPU takes back a failed charge.
    """
    limit = BY_WHOM[refusing]
    live.configure(limit)
    tokens_ns = 30 * S if refusing == "the peers" else 0
    half_a_circle_ns = 2**55  # from the word of a full bucket
    fill(live.slots, NO_SLOT, monotonic_ns() - tokens_ns + half_a_circle_ns)
    for peer in (A, B):
        run_program(live.program_fd, frame(peer), b"", 50)
    before = words(live, pins)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run_program, live.program_fd, frame(peer), b"", 10**6) for peer in (A, B) * 2]
        assert all(run.result() for run in runs)
    after = words(live, pins)
    passed = after[0] - before[0]
    assert 0 < passed < 4 * 10**6
    assert (after[1] - before[1]) % WORD == passed * gcra.packets_cost_q(1, SLOWER)
    if limit.per_peer and "slot" in refusing:
        assert (after[2] - before[2]) % WORD == passed * gcra.packets_cost_q(1, 1)


def words(machine: Machine, pins: Pins) -> tuple[int, int, int]:
    """Return the number of admitted packets, the word of the slot, and the sum of the words of its peers."""
    stats = machine.slots.stats(machine.index)
    return (
        stats.conform_packets + stats.delayed_packets,
        machine.slots.meters(machine.index).packets_tat,
        sum(packets for _, packets in entries(machine, pins).values()),
    )


def test_bulk_of_one_peer_does_not_delay_another(machine: Machine) -> None:
    """One peer waits for its own bucket. The pod's bucket admits the other peer at once."""
    limit = config(
        max_delay_q=25 * MS * gcra.QUANTA_PER_NS,
        bits_per_s=100 * MBIT,
        burst_bytes=32_768,
        per_peer=peers(bits_per_s=MBIT, burst_bytes=FULL),
    )
    machine.configure(limit)
    machine.fill(NOW_NS)
    machine.packet = frame(A)
    while machine.offer(NOW_NS, FULL):
        pass
    machine.packet = frame(B)
    assert machine.offer(NOW_NS, FULL)
    assert machine.departs_ns == 0


@pytest.mark.parametrize("rate", ["peer", "slot"])
def test_small_packets_pass_behind_either_bucket(machine: Machine, rate: str) -> None:
    """Small packets pass at once and are charged.
    They are dropped only behind more backlog than bulk can cause.
    """
    slow, fast = {"bits_per_s": MBIT, "burst_bytes": FULL}, {"bits_per_s": 10**9, "burst_bytes": 10**6}
    own, slot = (slow, fast) if rate == "peer" else (fast, slow)
    ready(machine, peers(**own), max_delay_q=25 * MS * gcra.QUANTA_PER_NS, **slot)
    machine.packet = frame(A)
    while machine.offer(NOW_NS, 65_536, 44):
        pass
    assert machine.offer(NOW_NS, 64)
    assert machine.departs_ns == 0
    assert not machine.offer(NOW_NS, FULL)
    assert not all(machine.offer(NOW_NS, 64) for _ in range(10_000))


def test_packets_that_exceed_either_bucket_are_marked(machine: Machine) -> None:
    """Marked packets are charged to no bucket."""
    ready(machine, peers(packets_per_s=1, burst_packets=2), packets_per_s=1, burst_packets=3, dscp=10)
    assert admitted(machine, A, 3) == 3
    assert machine.left[15] >> 2 == 10
    assert admitted(machine, B, 1) == 1
    assert machine.left[15] >> 2 == 0
    assert admitted(machine, B, 1) == 1
    assert machine.left[15] >> 2 == 10
    assert machine.slots.stats(machine.index).marked_packets == 2


def test_observe_counts_packets_that_enforce_would_reject(machine: Machine) -> None:
    """Compare packet by packet. Observe mode forwards all packets."""
    counts = []
    for observe in (False, True):
        limit = config(
            packets_per_s=100,
            burst_packets=8,
            per_peer=peers(packets_per_s=10, burst_packets=5),
            observe=observe,
        )
        machine.configure(limit)
        machine.fill(NOW_NS)
        passed = [admitted(machine, peer, 3, NOW_NS + n * 30 * MS) for n in range(20) for peer in (A, B, C)]
        assert all(each == 3 for each in passed) == observe
        stats = machine.slots.stats(machine.index)
        counts.append((stats.conform_packets, stats.exceed_packets, stats.peer_too_fast_packets))
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0


def test_packets_of_the_node_pass_in_the_reserve_for_any_peer(machine: Machine) -> None:
    """A probe of the kubelet passes, although its source address has used up its bucket."""
    reserve_q = gcra.bytes_time_q(2 * FULL, MBIT)
    ready(
        machine,
        peers(packets_per_s=1, burst_packets=1),
        reserve_bits_per_s=MBIT,
        reserve_burst_q=reserve_q,
        node_reserve=True,
    )
    assert admitted(machine, A, 5) == 1
    assert [machine.offer(NOW_NS, FULL, ingress_ifindex=0) for _ in range(3)] == [True, True, False]


def test_packets_in_the_reserve_are_charged_to_their_peer(machine: Machine) -> None:
    """If the probes of a peer pass in the reserve, the peer has fewer tokens afterwards."""
    reserve_q = gcra.bytes_time_q(10 * FULL, MBIT)
    ready(
        machine,
        peers(packets_per_s=1, burst_packets=3),
        packets_per_s=1000,
        burst_packets=1,
        reserve_bits_per_s=MBIT,
        reserve_burst_q=reserve_q,
        node_reserve=True,
    )
    assert admitted(machine, C, 1) == 1
    machine.packet = frame(A)
    assert [machine.offer(NOW_NS, FULL, ingress_ifindex=0) for _ in range(3)] == [True] * 3
    assert machine.slots.stats(machine.index).reserve_packets == 3
    refilled_ns = NOW_NS + 100 * MS
    assert admitted(machine, A, 1, refilled_ns) == 0
    assert admitted(machine, B, 1, refilled_ns) == 1


def test_configurations_with_peers_are_read_as_they_were_written(machine: Machine) -> None:
    """Check several prefix lengths and rates."""
    for per_peer in (
        None,
        PeerConfig(10**6, 12345, 7, 8, 1, 128, is_destination=True),
        peers(packets_per_s=3, burst_packets=9, ipv4_prefix_length=32, ipv6_prefix_length=1),
    ):
        written = SlotConfig(bits_per_s=MBIT, bytes_burst_q=99, per_peer=per_peer)
        machine.slots.write(machine.index, Slot(OWNER, written), fresh=True)
        assert machine.slots.read()[machine.index].config == written
