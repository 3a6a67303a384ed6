"""Define the counters of a slot, and sums of them."""

from __future__ import annotations

from dataclasses import dataclass

from tokenbucket.core.limits.counters import Counters


@dataclass(frozen=True, slots=True)
class Stats(Counters):
    """Counters of a slot, summed over the CPUs. Packets are wire packets."""

    @property
    def conform_packets(self) -> int:
        """Conforming packets, in the window or idle."""
        return self.in_window_packets + self.idle_packets

    @property
    def seen_packets(self) -> int:
        """All packets of the slot."""
        return self.conform_packets + self.too_fast_packets

    @property
    def admitted_packets(self) -> int:
        """Packets that the program let through, at once or later.

        A sum of counters never decreases. A difference of two counters may, because the program increases
        one counter after the other.
        """
        return self.conform_packets + self.reserve_packets + self.delayed_packets + self.forwarded_packets

    @property
    def admitted_bytes(self) -> int:
        """Bytes of the admitted packets."""
        return self.conform_bytes + self.reserve_bytes + self.delayed_bytes + self.forwarded_bytes

    @property
    def exceed_packets(self) -> int:
        """Excess packets, except those that were delayed or within the reserve."""
        return self.too_fast_packets - self.reserve_packets - self.delayed_packets

    @property
    def exceed_bytes(self) -> int:
        """Bytes of these excess packets."""
        return self.too_fast_bytes - self.reserve_bytes - self.delayed_bytes
