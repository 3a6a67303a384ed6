"""The guard never drops a packet that Delay let pass, and bounds the packets that bypass Delay."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.bpf.model import QUANTUM_NS, DelayModel, Meter, Model, byte_meter, packet_meter
from tests.generated import inputs
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.guard import LARGEST_BYTES, LARGEST_SEGMENTS, LATE_NS, guard_of
from tokenbucket.core.limits.slot import PeerConfig, SlotConfig

MS, START_NS = 10**6, 10**12
SMALL, MIDDLE, FULL = (64, 1), (300, 1), (1514, 1)
GSO, SEGMENTED = (68_504, 46), (65_536 + 123 * 66, 123)
"""64 KiB in segments of 1448 and of 536 bytes."""


@dataclass(frozen=True)
class Rates:
    """A bucket in plain units. A rate of 0 is no meter."""

    bits_per_s: int = 0
    burst_bytes: int = 0
    packets_per_s: int = 0
    burst_packets: int = 0

    def meters(self) -> tuple[Meter | None, Meter | None]:
        return (
            byte_meter(self.bits_per_s, self.burst_bytes) if self.bits_per_s else None,
            packet_meter(self.packets_per_s, self.burst_packets) if self.packets_per_s else None,
        )

    def fields(self) -> dict[str, int]:
        """Return fields of a BucketConfig."""
        return {
            "bits_per_s": self.bits_per_s,
            "bytes_burst_q": gcra.bytes_time_q(self.burst_bytes, self.bits_per_s) if self.bits_per_s else 0,
            "packets_per_s": self.packets_per_s,
            "packets_burst_q": gcra.packets_time_q(self.burst_packets, self.packets_per_s)
            if self.packets_per_s
            else 0,
        }


@dataclass(frozen=True)
class Declared:
    """A limit with Delay, and the bucket of each peer, if any."""

    own: Rates
    max_delay_ns: int
    peer: Rates | None = None

    def config(self) -> SlotConfig:
        peer = PeerConfig(**self.peer.fields()) if self.peer else None
        return SlotConfig(
            **self.own.fields(), max_delay_q=self.max_delay_ns * gcra.QUANTA_PER_NS, per_peer=peer
        )


@dataclass
class Delay(DelayModel):
    """The reference model of Delay, with a bucket for each peer."""

    declared: Declared = field(default_factory=lambda: Declared(Rates(), 0))
    _peers: dict[int, Model] = field(default_factory=dict)

    def send(self, now_ns: int, size_bytes: int, segments: int, peer: int) -> int | None:
        """Return the delay of a packet to this peer, or ``None`` if it is dropped."""
        if not self.declared.peer:
            return self.offer(now_ns, size_bytes, segments)
        model = self._peers.setdefault(peer, Model(*self.declared.peer.meters()))
        return self.offer(now_ns, size_bytes, segments, model)


@dataclass
class Deep(Meter):
    """A meter whose burst is a time in quanta."""

    burst_q: int = 0

    def burst_time(self) -> Fraction:
        return self.burst_q * QUANTUM_NS


def guard_model(config: SlotConfig) -> Model:
    """Return the reference model of a guard."""
    model = Model()
    if config.bits_per_s:
        model.bytes = Deep(Fraction(config.bits_per_s, 8), 0, burst_q=config.bytes_burst_q)
    if config.packets_per_s:
        rate, burst_q = Fraction(config.packets_per_s), config.packets_burst_q
        model.packets = Deep(rate, 0, fraction_bits=8, burst_q=burst_q)
    return model


@dataclass(frozen=True)
class Phase:
    """Packets that a pod sends with a pause after each, to a number of peers in turn."""

    size: tuple[int, int]
    count: int
    pause_ns: int
    peers: range = range(1)


def departures(declared: Declared, phases: list[Phase]) -> list[tuple[int, tuple[int, int]]]:
    """Return the departure time and the size of each packet that Delay admits."""
    delay = Delay(*declared.own.meters(), declared.max_delay_ns, declared)
    now_ns, left = START_NS, []
    for phase in phases:
        for number in range(phase.count):
            wait_ns = delay.send(now_ns, *phase.size, phase.peers[number % len(phase.peers)])
            if wait_ns is not None:
                left.append((now_ns + wait_ns, phase.size))
            now_ns += phase.pause_ns
    return left


def refused(declared: Declared, phases: list[Phase], stop_ns: int, less_bytes: int = 0) -> int:
    """Return the number of packets that a guard drops if a CPU stops for ``LATE_NS``."""
    config = guard_of(declared.config())
    assert config
    guard = guard_model(config)
    if less_bytes:
        guard.bytes.burst_q -= gcra.bytes_time_q(less_bytes, config.bits_per_s)
    resumes_ns = START_NS + stop_ns + LATE_NS - 1
    left = departures(declared, phases)
    arrivals = sorted((max(at, min(at + LATE_NS - 1, resumes_ns)), size) for at, size in left)
    return sum(not guard.offer(at_ns, *size) for at_ns, size in arrivals)


bits = st.builds(Rates, st.sampled_from([10**5, 10**6, 10**7, 10**9]), st.sampled_from([300, 32_768, 10**6]))
packets = st.builds(
    Rates,
    st.just(0),
    st.just(0),
    packets_per_s=st.sampled_from([10, 1000, 10**5]),
    burst_packets=st.sampled_from([1, 64, 5000]),
)
both = st.builds(
    lambda one, other: Rates(one.bits_per_s, one.burst_bytes, other.packets_per_s, other.burst_packets),
    bits,
    packets,
)
buckets = st.one_of(bits, packets, both)
limits = st.builds(
    Declared,
    buckets,
    st.sampled_from([MS, 25 * MS, 100 * MS, 1000 * MS]),
    st.one_of(st.none(), buckets),
)
sends = st.builds(
    Phase,
    st.sampled_from([SMALL, MIDDLE, FULL, GSO, SEGMENTED]),
    st.integers(1, 30),
    st.sampled_from([0, 1000, 100_000, MS, 20 * MS]),
    st.sampled_from([range(1), range(5), range(100, 200)]),
)


@given(limits, st.lists(sends, min_size=1, max_size=5), st.integers(-LATE_NS, 1000 * MS))
@example(Declared(Rates(10**6, 300), MS), [Phase(SEGMENTED, 9, 900 * MS)], 900 * MS)
def test_no_packet_that_delay_lets_pass_is_lost(
    declared: Declared, phases: list[Phase], stop_ns: int
) -> None:
    """Send any packets, and stop a CPU for as long as the guard permits."""
    assert refused(declared, phases, stop_ns) == 0


PACE_NS = FULL[0] * 8 * 100
"""Of full packets, at 10 Mbit/s."""
AT_RATE = Phase(FULL, 82, PACE_NS, range(1000, 2000))
"""For as long as a CPU may stop. They take no token of the burst."""
QUEUE = Phase(FULL, 400, 1000, range(2000, 3000))
"""The burst, and bulk that waits for the longest delay."""
LAST = Phase(SEGMENTED, 300, 1000, range(3000, 3300))
"""One more, as large as possible."""
BESIDE = Phase((256, 1), 800, 256 * 8 * 100, range(3300, 4300))
"""Small packets at the rate while the bulk departs."""
FLOOD = Phase((256, 1), 2000, 0, range(4300, 10_000))
"""All that the limit lets pass at once."""
QUIET = Phase(SMALL, 1, 125 * MS)


@pytest.mark.parametrize(
    ("declared", "phases", "stop_ns", "spare_bytes"),
    [
        # The burst, bulk for the longest delay, small packets beside it and half as many more, a stopped CPU.
        (Declared(Rates(10**7, 62_500), 100 * MS), [AT_RATE, QUEUE, LAST, BESIDE, FLOOD], 0, 90_000),
        # Packets to a hundred peers, each of which delays its second one until the same moment.
        (
            Declared(Rates(10**7, 160_000), 100 * MS, Rates(50_000, 1514)),
            [
                Phase(FULL, 100, 0, range(100)),
                QUIET,
                Phase(FULL, 96, PACE_NS, range(100)),
                AT_RATE,
                QUEUE,
                LAST,
                BESIDE,
                FLOOD,
            ],
            242 * MS,
            400_000,
        ),
    ],
    ids=["one meter", "peers"],
)
def test_a_smaller_guard_would_lose_packets(
    declared: Declared, phases: list[Phase], stop_ns: int, spare_bytes: int
) -> None:
    """Reduce the burst by the bytes to spare, and lose packets."""
    assert refused(declared, phases, stop_ns) == 0
    assert refused(declared, phases, stop_ns, spare_bytes) > 0


def test_the_guard_of_two_meters_needs_a_deeper_burst() -> None:
    """Include packets that wait for one meter and leave faster than the other admits them."""
    slow = Declared(Rates(6_056_000, 1514, 1000, 1), 100 * MS)
    left = departures(slow, [Phase(MIDDLE, 100, 0), Phase(FULL, 80, 2 * MS)])
    alone = Model(bytes=byte_meter(slow.own.bits_per_s, 2 * FULL[0]))
    assert not all(alone.offer(at_ns, *size) for at_ns, size in sorted(left))


@inputs(20)
@given(limits, st.sampled_from([SMALL, FULL, GSO]))
def test_packets_that_bypass_delay_get_the_rate_and_one_burst(
    declared: Declared, size: tuple[int, int]
) -> None:
    """Flood for a second. At most the rate, the burst of the guard and one packet pass."""
    config = guard_of(declared.config())
    assert config
    guard = guard_model(config)
    admitted = 0
    for step in range(11):
        while admitted < 1000 and guard.offer(START_NS + step * 100 * MS, *size):
            admitted += 1
    second_q = gcra.QUANTA_PER_S
    if config.bits_per_s:
        most = gcra.bytes_in(second_q + config.bytes_burst_q, config.bits_per_s)
        assert admitted * size[0] <= most + size[0]
    if config.packets_per_s:
        most = gcra.packets_in(second_q + config.packets_burst_q, config.packets_per_s)
        assert admitted * size[1] <= most + size[1]


def test_the_burst_is_the_sum_of_its_terms() -> None:
    """Add 62.5 kB, 150 ms of small packets, 80 KiB and 100 ms at 10 Mbit/s with the defaults."""
    config = guard_of(Declared(Rates(10**7, 62_500), 100 * MS).config())
    assert config
    assert config.burst_bytes == 62_500 + 187_500 + LARGEST_BYTES + 125_000


@pytest.mark.parametrize(
    "limit",
    [
        SlotConfig(bits_per_s=10**6, bytes_burst_q=1),
        SlotConfig(bits_per_s=10**6, bytes_burst_q=1, max_delay_q=1, observe=True),
        SlotConfig(max_delay_q=1, per_peer=PeerConfig(bits_per_s=10**6, bytes_burst_q=1)),
    ],
    ids=["Drop", "Observe", "peers alone"],
)
def test_a_limit_that_delays_nothing_by_its_own_rate_has_no_guard(limit: SlotConfig) -> None:
    """Need no guard for Drop, which runs on the node. The buckets of peers have no sum."""
    assert guard_of(limit) is None


def test_the_largest_packet_covers_gso() -> None:
    """Include a GSO packet of the program with a small packet behind it."""
    assert max(GSO[0], SEGMENTED[0], 2**16 + 256) <= LARGEST_BYTES
    assert max(GSO[1], SEGMENTED[1], 64 + 1) <= LARGEST_SEGMENTS
