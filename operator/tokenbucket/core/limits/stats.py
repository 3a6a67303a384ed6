"""What a slot has counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of a slot, summed over the CPUs. Packets are wire packets."""

    in_window_packets: int = 0
    idle_packets: int = 0
    conform_bytes: int = 0
    shared_peer_packets: int = 0
    """Had no bucket of their peer's, but the one shared by all without."""
    forwarded_packets: int = 0
    """Exceeded and were let through all the same: marked, or only observed."""
    forwarded_bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0
    too_fast_packets: int = 0
    too_fast_bytes: int = 0
    reserve_packets: int = 0
    reserve_bytes: int = 0
    contended_packets: int = 0
    unmetered_packets: int = 0
    unmetered_bytes: int = 0
    marked_packets: int = 0
    delayed_packets: int = 0
    delayed_bytes: int = 0
    delayed_ns: int = 0
    ce_packets: int = 0
    peer_too_fast_packets: int = 0
    """Exceeded their peer's bucket, whatever the slot's says."""

    @property
    def conform_packets(self) -> int:
        """Packets that conformed, in the window or idle."""
        return self.in_window_packets + self.idle_packets

    @property
    def seen_packets(self) -> int:
        """Packets that the program was run for."""
        return self.conform_packets + self.too_fast_packets

    @property
    def admitted_packets(self) -> int:
        """Packets that were let through, at once or later. Like all sums of counters it never falls while
        packets pass; a difference of two would, as the program counts one after the other.
        """
        return self.conform_packets + self.reserve_packets + self.delayed_packets + self.forwarded_packets

    @property
    def admitted_bytes(self) -> int:
        """Bytes of those packets."""
        return self.conform_bytes + self.reserve_bytes + self.delayed_bytes + self.forwarded_bytes

    @property
    def exceed_packets(self) -> int:
        """Packets that exceeded, not delayed and not in the reserve: dropped, marked or observed."""
        return self.too_fast_packets - self.reserve_packets - self.delayed_packets

    @property
    def exceed_bytes(self) -> int:
        """Bytes of those packets."""
        return self.too_fast_bytes - self.reserve_bytes - self.delayed_bytes
