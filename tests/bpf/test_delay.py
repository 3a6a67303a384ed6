"""Delay: what exceeds gets the time when it conforms, and what waits is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.model import Meter, byte_meter, packet_meter
from tests.bpf.test_mark import checksum, ipv4, ipv6
from tokenbucket.core import gcra

NOW_NS = 10**12
FULL, SMALL = 1514, 256
ECT0, ECT1, CE = 2, 1, 3
MS = 10**6
FRAME = bytes(12) + b"\x08\x00" + ipv4(0) + bytes(1460)


def delaying(max_delay_ns: int = 25 * MS, **rates: int) -> object:
    return config(max_delay_q=max_delay_ns * gcra.QUANTA_PER_NS, **rates)


@pytest.fixture(autouse=True)
def _real_packets(request: pytest.FixtureRequest) -> None:
    for name in ("machine", "ingress_machine"):
        if name in request.fixturenames:
            request.getfixturevalue(name).packet = FRAME


@dataclass
class Delayed:
    """The model: meters in exact arithmetic, of which each has room for what may wait."""

    meters: list[tuple[Meter, str]]
    max_delay_ns: int

    def offer(self, now_ns: int, size: int) -> int | None:
        """When the packet departs; ``None`` where it is dropped."""
        demands = [(meter, size if unit == "bytes" else 1) for meter, unit in self.meters]
        if not all(meter.conforms(now_ns, units) for meter, units in demands):
            limit = self.max_delay_ns * (2 if size <= SMALL else 1)
            if any(meter.base(now_ns) - now_ns > limit for meter, _ in demands):
                return None
        departs = Fraction(now_ns)
        for meter, units in demands:
            departs = max(departs, meter.base(now_ns) + min(meter.time_of(units), meter.burst_time()))
            meter.charge(now_ns, units)
        return now_ns + int(departs - now_ns) if size > SMALL else now_ns


@pytest.mark.parametrize("bits_per_s", [8_000, 10**6, 10**8, 10**10, 10**12])
def test_packets_depart_at_the_rate_exactly(machine: Machine, bits_per_s: int) -> None:
    """Whatever the rate; the first by the time that the bucket lacks, each other one packet's time later."""
    machine.configure(delaying(10**9, bits_per_s=bits_per_s, burst_bytes=4 * FULL))
    machine.fill(NOW_NS)
    model = Delayed([(byte_meter(bits_per_s, 4 * FULL), "bytes")], 10**9)
    for _ in range(40):
        expected = model.offer(NOW_NS, FULL)
        assert machine.offer(NOW_NS, FULL) == (expected is not None)
        assert expected is None or machine.departs_ns == expected


@hypothesis_settings(max_examples=60)
@given(
    bits=st.one_of(st.none(), st.integers(8_000, 10**10)),
    packets=st.one_of(st.none(), st.integers(1, 10**7)),
    delay_ms=st.integers(5, 1000),
    offers=st.lists(
        st.tuples(st.integers(0, 30 * MS), st.sampled_from([60, 256, 257, 600, 1514])), max_size=60
    ),
)
def test_every_departure_is_the_models(
    machine_of_session: Machine, bits: int | None, packets: int | None, delay_ms: int, offers: list
) -> None:
    """Of bytes, of packets, and of both together, with small packets among them."""
    if bits is None and packets is None:
        packets = 1000
    rates = {"bits_per_s": bits or 0, "burst_bytes": 3000 if bits else 0}
    rates |= {"packets_per_s": packets or 0, "burst_packets": 2 if packets else 0}
    machine, now = machine_of_session, NOW_NS
    machine.packet = FRAME
    machine.configure(delaying(delay_ms * MS, **rates))
    machine.fill(now)
    meters = [(byte_meter(bits, 3000), "bytes")] if bits else []
    meters += [(packet_meter(packets, 2), "packets")] if packets else []
    model = Delayed(meters, delay_ms * MS)
    for pause, size in offers:
        now += pause
        expected = model.offer(now, size)
        assert machine.offer(now, size) == (expected is not None)
        assert expected is None or machine.departs_ns == expected


@pytest.fixture(scope="module")
def machine_of_session(compiled_by_bcc: object, slots_of_session: object) -> Machine:
    return Machine(compiled_by_bcc.load_func(b"clocked_egress", 3).fd, slots_of_session, index=20)


def test_what_counts_is_what_waits_ahead(machine: Machine) -> None:
    """A super-packet of half a second passes an empty bucket; behind it nothing does for a while."""
    machine.configure(delaying(25 * MS, bits_per_s=10**6, burst_bytes=2000))
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, FULL)
    assert machine.offer(NOW_NS, 64 * 1024, segments=44)
    assert machine.departs_ns > NOW_NS
    assert not machine.offer(NOW_NS, FULL)
    assert not machine.offer(NOW_NS + 400 * MS, FULL)
    assert machine.offer(NOW_NS + 515 * MS, FULL)


def test_a_small_packet_never_waits_and_has_twice_the_room(machine: Machine) -> None:
    """It is charged all the same, so a flood of small packets gets the rate."""
    machine.configure(delaying(10 * MS, bits_per_s=10**6, burst_bytes=FULL))
    machine.fill(NOW_NS)
    while machine.offer(NOW_NS, FULL):
        pass
    passed = 0
    while machine.offer(NOW_NS, 64):
        assert machine.departs_ns == NOW_NS
        passed += 1
    assert passed == pytest.approx(10 * MS / (64 * 8 * 1000), abs=25)
    admitted = sum(machine.offer(NOW_NS + i * MS // 10, 64) for i in range(20_000))
    assert admitted * 64 * 8 <= 2 * 10**6 + 64 * 8, "2 s at 1 Mbit/s"


def test_what_is_admitted_stays_within_rate_and_burst_and_what_may_wait(machine: Machine) -> None:
    """Whatever is offered: over any time, rate x time + burst + the longest wait."""
    rate, burst, delay = 10**7, 20_000, 30 * MS
    machine.configure(delaying(delay, bits_per_s=rate, burst_bytes=burst))
    machine.fill(NOW_NS)
    offers = [NOW_NS + step * 50_000 for step in range(4000)]
    departures = [machine.departs_ns for now in offers if machine.offer(now, FULL)]
    assert departures == sorted(departures)
    for place, first in enumerate(departures):
        in_100_ms = sum(1 for each in departures[place:] if each <= first + 100 * MS)
        assert in_100_ms * FULL <= rate / 80 + burst + FULL


def test_a_dropped_packet_is_charged_to_neither_meter(machine: Machine) -> None:
    """The byte meter would let it wait; the packet meter does not."""
    machine.configure(
        delaying(10 * MS, bits_per_s=10**9, burst_bytes=FULL, packets_per_s=50, burst_packets=1)
    )
    machine.fill(NOW_NS)
    assert machine.offer(NOW_NS, FULL)
    assert machine.offer(NOW_NS, FULL)
    before = machine.slots.meters(machine.index)
    assert not machine.offer(NOW_NS, FULL)
    assert machine.slots.meters(machine.index) == before


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("ecn", "ahead_ms", "marked"),
    [(ECT0, 4, 0), (ECT0, 6, 1), (ECT1, 0.8, 0), (ECT1, 2, 1), (0, 20, 0)],
)
def test_ecn_capable_packets_are_told_of_congestion(
    machine: Machine, family: str, ecn: int, ahead_ms: float, marked: int
) -> None:
    """ECT(0) from a fifth of the longest delay on, ECT(1) from 1 ms on; the IPv4 checksum stays right."""
    rate, header = 10**7, ipv4(ecn) if family == "IPv4" else ipv6(ecn)
    front = bytes(12) + (b"\x08\x00" if family == "IPv4" else b"\x86\xdd")
    machine.configure(delaying(25 * MS, bits_per_s=rate, burst_bytes=100))
    machine.fill(NOW_NS)
    machine.packet = front + header + bytes(1400)
    machine.offer(NOW_NS, 100)
    size = int(ahead_ms * rate / 8000)
    machine.offer(NOW_NS, size, segments=1 + size // 1514)
    before = machine.slots.stats(machine.index).ce_packets
    assert machine.offer(NOW_NS, FULL)
    assert machine.slots.stats(machine.index).ce_packets - before == marked
    after = machine.left[14:16]
    found = after[1] & 3 if family == "IPv4" else after[1] >> 4 & 3
    assert found == (CE if marked else ecn)
    if family == "IPv4":
        assert checksum(machine.left[14:34]) in {0, 0xFFFF}


def test_counters_tell_what_waited(machine: Machine) -> None:
    """Conforming, delayed and dropped packets apart, and the delay given."""
    machine.configure(delaying(10 * MS, bits_per_s=10**7, burst_bytes=FULL))
    machine.fill(NOW_NS)
    waited = [machine.departs_ns - NOW_NS for _ in range(20) if machine.offer(NOW_NS, FULL)]
    stats = machine.slots.stats(machine.index)
    assert stats.conform_packets == 1
    assert stats.delayed_packets == len(waited) - 1
    assert stats.delayed_bytes == stats.delayed_packets * FULL
    assert stats.delayed_ns == sum(waited)
    assert stats.exceed_packets == 20 - len(waited)


def test_what_is_not_ip_goes_at_once(machine: Machine) -> None:
    """The kernel gives ARP no departure time; it is charged."""
    machine.configure(delaying(10 * MS, bits_per_s=10**6, burst_bytes=300))
    machine.fill(NOW_NS)
    machine.packet = bytes(12) + b"\x08\x06" + bytes(500)
    assert machine.offer(NOW_NS, 300)
    assert machine.offer(NOW_NS, 300)
    assert machine.departs_ns == NOW_NS


def test_observing_delays_nothing(machine: Machine) -> None:
    """It counts what would exceed."""
    machine.configure(config(bits_per_s=10**6, burst_bytes=FULL, observe=True))
    machine.fill(NOW_NS)
    assert all(machine.offer(NOW_NS, FULL) for _ in range(50))
    assert machine.departs_ns == NOW_NS
    assert machine.slots.stats(machine.index).exceed_packets == 49


def test_at_an_ingress_hook_nothing_waits(ingress_machine: Machine) -> None:
    """No queue is behind it: what exceeds is dropped."""
    ingress_machine.configure(delaying(25 * MS, packets_per_s=10, burst_packets=1))
    ingress_machine.fill(NOW_NS)
    assert ingress_machine.offer(NOW_NS)
    assert not ingress_machine.offer(NOW_NS)
