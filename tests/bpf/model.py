"""Reference models of the token bucket, in exact arithmetic and without wrap-around.

The models implement the definition of the generic cell rate algorithm, not the program. ``Model`` takes the
size of the quantum. A quantum of 1/256 ns gives the decisions that the program must take; no quantum gives
the ideal decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

QUANTUM_NS = Fraction(1, 256)


BYTE_FRACTION_BITS, PACKET_FRACTION_BITS = 14, 8
LONGEST_QUANTA = 2**54
"""The largest charge of a packet."""


@dataclass
class Meter:
    """One bucket: ``rate`` in units (bytes or packets) per second, ``burst`` in units, times in ns."""

    rate: Fraction
    burst: int
    quantum_ns: Fraction | None = QUANTUM_NS
    fraction_bits: int = BYTE_FRACTION_BITS
    tat_ns: Fraction | None = None
    depth_ns: Fraction | None = None
    """The burst as a time. It replaces ``burst``."""

    def time_of(self, units: int) -> Fraction:
        """Return the time that a packet of so many units takes."""
        if self.quantum_ns is None:
            return units / self.rate * 10**9
        return min(_nearest(units * self._unit_quanta()), LONGEST_QUANTA) * self.quantum_ns

    def burst_time(self) -> Fraction:
        """Return the depth of the bucket. For packets, this is the sum of the times of single packets."""
        if self.depth_ns is not None:
            return self.depth_ns
        if self.fraction_bits == PACKET_FRACTION_BITS:
            return self.burst * self.time_of(1)
        exact = self.burst / self.rate * 10**9
        return exact if self.quantum_ns is None else _nearest(exact / self.quantum_ns) * self.quantum_ns

    def _unit_quanta(self) -> Fraction:
        """Return the quanta of one unit, with the fraction bits that the kernel stores."""
        exact = 10**9 / self.rate / QUANTUM_NS
        return Fraction(_nearest(exact * 2**self.fraction_bits), 2**self.fraction_bits)

    def base(self, now_ns: int) -> Fraction:
        """Return the start of the window for a packet at ``now_ns``."""
        oldest = Fraction(now_ns) - self.burst_time()
        return oldest if self.tat_ns is None else max(self.tat_ns, oldest)

    def conforms(self, now_ns: int, units: int) -> bool:
        """Return whether the packet finds its tokens, or a full bucket."""
        return self.base(now_ns) + min(self.time_of(units), self.burst_time()) <= now_ns

    def charge(self, now_ns: int, units: int) -> None:
        """Charge the full cost of the packet."""
        self.tat_ns = self.base(now_ns) + self.time_of(units)


def byte_meter(bits_per_s: int, burst_bytes: int, quantum_ns: Fraction | None = QUANTUM_NS) -> Meter:
    """Return a meter of bytes, from a rate in bits."""
    return Meter(Fraction(bits_per_s, 8), burst_bytes, quantum_ns)


def packet_meter(packets_per_s: int, burst_packets: int) -> Meter:
    """Return a meter of packets."""
    return Meter(Fraction(packets_per_s), burst_packets, fraction_bits=PACKET_FRACTION_BITS)


@dataclass
class Model:
    """The limit of a slot: a byte meter, a packet meter, or both."""

    bytes: Meter | None = None
    packets: Meter | None = None
    admitted_bytes: int = field(default=0, init=False)

    def offer(self, now_ns: int, size_bytes: int, segments: int = 1) -> bool:
        """Decide on one packet, and charge the packet if it is admitted."""
        demands = [(self.bytes, size_bytes), (self.packets, segments)]
        used = [(meter, units) for meter, units in demands if meter]
        conforms = all(meter.conforms(now_ns, units) for meter, units in used)
        if conforms:
            self.admitted_bytes += size_bytes
            for meter, units in used:
                meter.charge(now_ns, units)
        return conforms


SMALL_BYTES, SUPER_BYTES, SUPER_SEGMENTS = 256, 2**18, 2048


@dataclass
class DelayModel:
    """A limit that delays packets, by the same meters. A packet departs when it conforms.

    Small excess packets have separate meters, as deep as half of the longest delay. The meters of a peer
    accept small packets behind one GSO packet that was accepted at the longest delay.
    """

    bytes: Meter | None
    packets: Meter | None
    max_delay_ns: int

    def __post_init__(self) -> None:
        """Fill the meters of small packets."""
        depth_ns = self.max_delay_ns / QUANTUM_NS // 2 * QUANTUM_NS
        self._small = [
            meter and replace(meter, tat_ns=None, depth_ns=depth_ns) for meter in (self.bytes, self.packets)
        ]

    def offer(self, now_ns: int, size_bytes: int, segments: int = 1, peer: Model | None = None) -> int | None:
        """Return the delay of one packet, in whole ns.
        Return ``None`` if the packet is dropped and charged to no meter.
        """
        of_peer = _used((peer.bytes, peer.packets), size_bytes, segments) if peer else []
        demands = _used((self.bytes, self.packets), size_bytes, segments) + of_peer
        exceeds = not all(meter.conforms(now_ns, units) for meter, units in demands)
        if exceeds and size_bytes <= SMALL_BYTES:
            if not self._admits_small(now_ns, size_bytes, segments, peer):
                return None
        elif exceeds:
            limit_ns = early_drop_limit(self.max_delay_ns, now_ns)
            if any(meter.base(now_ns) - now_ns > limit_ns for meter, _ in demands):
                return None
        waits = [
            meter.base(now_ns) - now_ns + min(meter.time_of(units), meter.burst_time())
            for meter, units in demands
        ]
        for meter, units in demands:
            meter.charge(now_ns, units)
        return 0 if size_bytes <= SMALL_BYTES else max(0, int(max(waits)))

    def _admits_small(self, now_ns: int, size_bytes: int, segments: int, peer: Model | None) -> bool:
        largest = _used((peer.bytes, peer.packets), SUPER_BYTES, SUPER_SEGMENTS) if peer else []
        for meter, units in largest:
            if meter.base(now_ns) - now_ns > Fraction(3 * self.max_delay_ns, 2) + meter.time_of(units):
                return False
        small = _used(self._small, size_bytes, segments)
        if not all(meter.conforms(now_ns, units) for meter, units in small):
            return False
        for meter, units in small:
            meter.charge(now_ns, units)
        return True


def _used(meters: Iterable[Meter | None], size_bytes: int, segments: int) -> list[tuple[Meter, int]]:
    return [(meter, units) for meter, units in zip(meters, (size_bytes, segments), strict=True) if meter]


def early_drop_limit(max_delay_ns: int, now_ns: int) -> Fraction:
    """Return the longest backlog that a large packet accepts: between half and all of the longest delay."""
    half = max_delay_ns / QUANTUM_NS // 2
    scrambled = _scrambled(int(now_ns / QUANTUM_NS) % 2**64)
    largest = max(scrambled >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return (half + half * largest // 2**16) * QUANTUM_NS


def _scrambled(number: int) -> int:
    """Apply the finalizer of SplitMix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ number >> shift) * factor % 2**64
    return number ^ number >> 31


def _nearest(value: Fraction) -> int:
    return (value + Fraction(1, 2)).__floor__()
