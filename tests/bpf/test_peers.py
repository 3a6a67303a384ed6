"""Peers: a bucket for each remote prefix, under the pod's."""

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
    """A full-size frame between a peer and the pod."""
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
    """The bucket of each peer from rates and bursts in plain units."""
    plain = config(bits_per_s, burst_bytes, packets_per_s, burst_packets)
    return PeerConfig(
        plain.bits_per_s, plain.bytes_burst_q, plain.packets_per_s, plain.packets_burst_q, **more
    )


def ready(machine: Machine, per_peer: PeerConfig, **slot: int) -> None:
    """A slot with peers, and everything full."""
    machine.configure(config(per_peer=per_peer, **slot))
    machine.fill(NOW_NS)


def admitted(machine: Machine, peer: Address, count: int, now_ns: int = NOW_NS, **more: str) -> int:
    """How many of so many packets of a peer pass."""
    machine.packet = frame(peer, **more)
    return sum(machine.offer(now_ns) for _ in range(count))


def tokens(machine: Machine) -> tuple[int, int]:
    """What the slot's own buckets hold, as times."""
    meters, now_q = machine.slots.meters(machine.index), gcra.word_of(NOW_NS)
    used = machine.slots.read()[machine.index].config
    return (
        gcra.tokens_q(meters.bytes_tat, now_q, used.bytes_burst_q),
        gcra.tokens_q(meters.packets_tat, now_q, used.packets_burst_q),
    )


@dataclass
class PeersModel:
    """A limit with peers: a meter of each kind for each, none of which the slot's may be without."""

    slot: Model
    rates: dict[str, int]
    own: dict[Address, Model] = field(default_factory=dict)

    def offer(self, now_ns: int, peer: Address, size_bytes: int, segments: int) -> bool:
        """Decides on one packet, and charges it to all or to none."""
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
    """The model of a bucket."""
    return Model(
        byte_meter(bits_per_s, burst_bytes) if bits_per_s else None,
        packet_meter(packets_per_s, burst_packets) if packets_per_s else None,
    )


@st.composite
def rates(draw: st.DrawFn, *, may_be_none: bool) -> dict[str, int]:
    """A bucket of bytes, of packets, of both, or none."""
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
def test_every_decision_is_the_models(
    machine: Machine,
    slot: dict[str, int],
    own: dict[str, int],
    start_ns: int,
    offers: list[tuple[int, Address, tuple[int, int]]],
) -> None:
    """Of any two buckets in a chain, and peers that come and go, at any uptime."""
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
    """As of one limit with all the meters of both."""
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
    """What one has used up is there for the other."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, first, 20) == 5
    assert admitted(machine, second, 20) == 5
    assert admitted(machine, first, 20, NOW_NS + 2 * S) == 2


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("peer", [A, ALICE], ids=["IPv4", "IPv6"])
def test_the_same_peer_below_any_tag(machine: Machine, peer: Address, tags: str) -> None:
    """A tag neither hides an address nor makes another one of it."""
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
    """IPv4 by address and IPv6 by /64, unless other lengths are given."""
    ready(machine, peers(packets_per_s=1, burst_packets=5, **prefixes))
    assert [admitted(machine, ip_address(each), 3) for each in same] == [3, 2]
    assert admitted(machine, ip_address(other), 3) == 3


@pytest.mark.parametrize("hook", ["machine", "ingress_machine"])
@pytest.mark.parametrize("is_destination", [False, True])
def test_the_direction_is_the_slots_not_the_hooks(
    request: pytest.FixtureRequest, hook: str, *, is_destination: bool
) -> None:
    """The other end varies; the pod's own address is no peer."""
    machine = request.getfixturevalue(hook)
    ready(machine, peers(packets_per_s=1, burst_packets=2, is_destination=is_destination))
    for peer in (A, ALICE):
        assert admitted(machine, peer, 5, is_destination=is_destination) == 2
    assert admitted(machine, B, 5, is_destination=is_destination) == 2
    assert admitted(machine, C, 5, is_destination=not is_destination) == 2
    assert admitted(machine, A, 5, is_destination=not is_destination) == 0


@pytest.mark.parametrize("peer", [A, ALICE], ids=["IPv4", "IPv6"])
def test_fragments_are_their_senders(machine: Machine, peer: Address) -> None:
    """The later ones too, which have addresses and no ports."""
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
def test_what_has_no_address_shares_one_bucket(machine: Machine, kind: str) -> None:
    """At the rate of a peer: it is neither free nor somebody's."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    machine.packet = NO_ADDRESS[kind]
    assert sum(machine.offer(NOW_NS) for _ in range(20)) == 5
    assert machine.slots.stats(machine.index).shared_peer_packets == 5
    assert admitted(machine, A, 20) == 5


def test_a_flood_of_one_peer_takes_nothing_of_the_others(machine: Machine) -> None:
    """What its own bucket refuses is not charged to the pod's."""
    ready(machine, peers(packets_per_s=1, burst_packets=5), packets_per_s=100, burst_packets=100)
    assert admitted(machine, A, 1000) == 5
    assert [admitted(machine, ip_address(f"192.0.3.{n}"), 5) for n in range(19)] == [5] * 19
    stats = machine.slots.stats(machine.index)
    assert (stats.conform_packets, stats.peer_too_fast_packets) == (100, 995)


def test_what_the_pods_bucket_refuses_is_not_charged_to_the_peer(machine: Machine) -> None:
    """Nor makes it an entry: it begins when the pod has room."""
    ready(machine, peers(packets_per_s=1, burst_packets=50), packets_per_s=10, burst_packets=10)
    assert admitted(machine, A, 20) == 10
    assert admitted(machine, B, 1000) == 0
    assert admitted(machine, B, 100, NOW_NS + S) == 10
    assert admitted(machine, A, 100, NOW_NS + 2 * S) == 10


@pytest.mark.parametrize("refusing", ["peer", "slot"])
def test_a_refused_packet_is_charged_to_no_meter(machine: Machine, pins: Pins, refusing: str) -> None:
    """Of four, whichever of the two buckets it is that refuses."""
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
    """The peers of the slot and their meters."""
    with Peers(pins) as opened:
        found = opened.of(machine.index, machine.slots.peers_epoch(machine.index))
        return {str(peer): (peer.bytes_tat, peer.packets_tat) for peer in found}


def test_entries_say_whose_they_are(machine: Machine, pins: Pins) -> None:
    """With their prefix, and only those of the slot."""
    ready(machine, peers(packets_per_s=1, burst_packets=5, ipv4_prefix_length=24))
    for peer in (A, B, ALICE):
        admitted(machine, peer, 1)
    assert entries(machine, pins).keys() == {"192.0.2.0/24", "2001:db8::/64"}
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert entries(machine, pins) == {}
    admitted(machine, A, 1)
    assert entries(machine, pins).keys() == {"192.0.2.1"}


def test_the_next_owner_of_a_slot_has_new_peers(machine: Machine) -> None:
    """A slot that was freed: what its last owner's peers have used up is theirs alone."""
    limit = config(per_peer=peers(packets_per_s=1, burst_packets=5))
    machine.configure(limit)
    assert admitted(machine, A, 20) == 5
    machine.slots.free(machine.index)
    machine.configure(limit)
    assert admitted(machine, A, 20) == 5


def test_a_new_rate_leaves_the_peers_as_they_are(machine: Machine) -> None:
    """An emptied bucket is not filled by a change of its configuration."""
    ready(machine, peers(packets_per_s=1, burst_packets=5))
    assert admitted(machine, A, 20) == 5
    machine.change(config(per_peer=peers(packets_per_s=2, burst_packets=50)), NOW_NS)
    assert admitted(machine, A, 20) == 0
    assert admitted(machine, A, 20, NOW_NS + S) == 2


def test_two_slots_have_each_their_own_peers(machine: Machine, ingress_machine: Machine) -> None:
    """Though the map is one."""
    for each in (machine, ingress_machine):
        ready(each, peers(packets_per_s=1, burst_packets=5))
        assert admitted(each, A, 20) == 5


def test_forged_addresses_get_no_more_than_the_pod_has(machine: Machine) -> None:
    """Ten times more of them than the map has room for: each has a full bucket, together they have the pod's.

    And one that is known is not forgotten for them: the map turns over at the rate of what passes.
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
    """The program on a map that refuses entries, which a map that forgets seldom does."""
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
    """It, on a slot of its own."""
    pins, program_fd = without_room
    with Slots(pins) as slots:
        yield Machine(program_fd, slots)


def test_the_map_forgets_who_was_not_there_for_long(machine: Machine, pins: Pins) -> None:
    """It never refuses who comes, and keeps who comes again and again."""
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


def test_a_map_that_refuses_entries_never_means_unlimited(refusing: Machine) -> None:
    """Peers without an entry share the rate of one; those that have one keep theirs."""
    ready(refusing, peers(packets_per_s=1, burst_packets=5))
    known = [ip_address(f"192.0.2.{n}") for n in range(4)]
    assert [admitted(refusing, peer, 20) for peer in known] == [5] * 4
    assert sum(admitted(refusing, ip_address(0x0A00_0000 + n), 1) for n in range(1000)) == 5
    assert sum(admitted(refusing, ip_address(0x0B00_0000 + n), 1, NOW_NS + S) for n in range(1000)) == 1
    assert refusing.slots.stats(refusing.index).shared_peer_packets == 6
    assert [admitted(refusing, peer, 20, NOW_NS + S) for peer in known] == [1] * 4


def test_cpus_do_not_multiply_a_peers_burst(machine: Machine, pins: Pins) -> None:
    """Several CPUs, two peers, at one instant: each bucket gives what it holds, to the packet."""
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
    """The shipped entry point with the real clock, so that buckets are on the edge all the time.

    A test run sees slot 0, which is nobody's and must be so afterwards.
    """
    yield Machine(compiled_by_bcc.load_func(b"at_egress_hook", 3).fd, slots, index=NO_SLOT)
    slots.free(NO_SLOT)


SLOWER = 100_000
"""Packets per second: fewer than any machine decides on."""
WHOLE = {"packets_per_s": SLOWER, "burst_packets": 60 * SLOWER}
"""A minute's burst: a meter that is never idle, so that its word is what was charged since it was read."""
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
def test_what_is_charged_is_what_was_let_through(live: Machine, pins: Pins, refusing: str) -> None:
    """To the quantum, where several CPUs stand on the edge of a bucket: a charge that lost is taken back."""
    limit = BY_WHOM[refusing]
    live.configure(limit)
    tokens_ns = 30 * S if refusing == "the peers" else 0
    half_a_circle_ns = 2**55  # from where a full bucket's word is
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
    """Packets let through, and the words of the slot and, together, of its peers."""
    stats = machine.slots.stats(machine.index)
    return (
        stats.conform_packets + stats.delayed_packets,
        machine.slots.meters(machine.index).packets_tat,
        sum(packets for _, packets in entries(machine, pins).values()),
    )


def test_bulk_of_one_peer_does_not_hold_up_another(machine: Machine) -> None:
    """One waits for its own bucket; the other goes at once, from the pod's."""
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
    """At once, and charged; and dropped only where more is ahead than bulk can put there."""
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


def test_marked_is_what_exceeds_either_bucket(machine: Machine) -> None:
    """And charged to none."""
    ready(machine, peers(packets_per_s=1, burst_packets=2), packets_per_s=1, burst_packets=3, dscp=10)
    assert admitted(machine, A, 3) == 3
    assert machine.left[15] >> 2 == 10
    assert admitted(machine, B, 1) == 1
    assert machine.left[15] >> 2 == 0
    assert admitted(machine, B, 1) == 1
    assert machine.left[15] >> 2 == 10
    assert machine.slots.stats(machine.index).marked_packets == 2


def test_observing_counts_what_enforcing_would_refuse(machine: Machine) -> None:
    """Packet by packet, and forwards it all."""
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


def test_the_nodes_own_packets_have_their_reserve_whoever_their_peer_is(machine: Machine) -> None:
    """A probe of the kubelet from an address that has used its bucket up."""
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
    """A peer whose probes pass in the reserve of an empty pod's bucket sends less after them."""
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
    """Whatever their prefixes and rates."""
    for per_peer in (
        None,
        PeerConfig(10**6, 12345, 7, 8, 1, 128, is_destination=True),
        peers(packets_per_s=3, burst_packets=9, ipv4_prefix_length=32, ipv6_prefix_length=1),
    ):
        written = SlotConfig(bits_per_s=MBIT, bytes_burst_q=99, per_peer=per_peer)
        machine.slots.write(machine.index, Slot(OWNER, written), fresh=True)
        assert machine.slots.read()[machine.index].config == written
