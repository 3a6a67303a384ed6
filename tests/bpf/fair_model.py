"""Reference model of fair departures, in exact arithmetic, and the packets of many flows.

The model implements the definition in ``operator/bpf/fair.h``. Each flow has its own tag, and no value is
rounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from fractions import Fraction

from tests.bpf.model import QUANTUM_NS, SMALL_BYTES, Meter, early_drop_limit

CREDIT_BYTES, CREDIT_FRACTION = 10_000, 8
LARGEST = Fraction(3, 2)
"""The longest backlog of a packet that departs before a part of it, in longest delays."""


def frame(flow: int, size_bytes: int = 1514) -> bytes:
    """Return a packet of UDP over IPv4. The flow is its source port, and its source address beyond 2^16."""
    address = struct.pack("!HHI", 0x0A00, flow >> 16, 0x0A000002)
    header = struct.pack("!BBHHHBBH", 0x45, 0, size_bytes - 14, 1, 0, 64, 17, 0) + address
    ports = struct.pack("!HHHH", flow & 0xFFFF, 53, size_bytes - 34, 0)
    return bytes(12) + b"\x08\x00" + header + ports + bytes(size_bytes - 42)


@dataclass(frozen=True)
class Offer:
    """One packet in the model, with times relative to now."""

    departs_ns: Fraction
    wait_ns: Fraction
    """The time of the packets that depart before it. Early drop compares this time."""
    ahead_ns: Fraction
    """The time of the meter's backlog."""
    fifo_ns: Fraction
    """The time at which the packet departs from a FIFO queue."""
    conforms: bool


@dataclass
class FairModel:
    """A limit by one meter, whose excess packets depart in turn."""

    meter: Meter
    max_delay_ns: int
    top: Fraction = Fraction(0)
    share: Fraction = Fraction(1)
    tags: dict[int, Fraction] = field(default_factory=dict)
    departures: dict[int, Fraction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the meter of small packets."""
        depth_ns = self.max_delay_ns / QUANTUM_NS // 2 * QUANTUM_NS
        self.small = replace(self.meter, tat_ns=None, depth_ns=depth_ns)

    def look(self, now_ns: int, flow: int, size_bytes: int) -> Offer:
        """Return the verdict on a packet, without a charge."""
        signed = self.meter.base(now_ns) - now_ns
        ahead = max(signed, Fraction(0))
        fifo = max(signed + min(self.meter.time_of(size_bytes), self.meter.burst_time()), Fraction(0))
        if self.meter.conforms(now_ns, size_bytes) or size_bytes <= SMALL_BYTES:
            conforms = self.meter.conforms(now_ns, size_bytes)
            return Offer(Fraction(0), Fraction(0), ahead, fifo, conforms)
        span, own = self._backlogs(flow, ahead)
        last = max(self.departures.get(flow, Fraction(0)) - now_ns, Fraction(0))
        wait = ahead if own == span else min(max(own, Fraction(0)) / self.share, ahead)
        departs = fifo if own == span else wait
        wait = min(max(wait, last), ahead)
        return Offer(min(max(departs, last), fifo), wait, ahead, fifo, conforms=False)

    def passes(self, now_ns: int, size_bytes: int, offer: Offer) -> bool:
        """Return whether the limit charges the packet."""
        if offer.conforms:
            return True
        if size_bytes <= SMALL_BYTES:
            return self.small.conforms(now_ns, size_bytes)
        if offer.wait_ns < offer.ahead_ns and offer.ahead_ns > LARGEST * self.max_delay_ns:
            return False
        return offer.wait_ns <= early_drop_limit(self.max_delay_ns, now_ns)

    def charge(self, now_ns: int, flow: int, size_bytes: int, offer: Offer) -> None:
        """Charge a packet that passes."""
        cost, before_ns = self.meter.time_of(size_bytes), self.meter.base(now_ns)
        self.meter.charge(now_ns, size_bytes)
        if offer.conforms:
            return
        if size_bytes <= SMALL_BYTES:
            self.small.charge(now_ns, size_bytes)
            return
        span, own = self._backlogs(flow, offer.ahead_ns)
        virtual = self.top - span
        self.tags[flow] = virtual + own + cost
        self.departures[flow] = now_ns + offer.departs_ns
        self.top = virtual + max(span, own + cost)
        after = before_ns + cost - now_ns
        self.share = min((self.top - virtual) / after, Fraction(1)) if after > 0 else Fraction(1)

    def _backlogs(self, flow: int, ahead: Fraction) -> tuple[Fraction, Fraction]:
        """Return the largest backlog of a flow, and that of this flow."""
        span = ahead * self.share
        credit = min(self.meter.time_of(CREDIT_BYTES), Fraction(self.max_delay_ns, CREDIT_FRACTION), ahead)
        tag = self.tags.get(flow, Fraction(0))
        return span, max(min(tag - self.top, Fraction(0)) + span, -credit)
