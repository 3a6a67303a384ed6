"""What a token bucket lets pass, computed from the times at which packets were sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that is full when the first packet is sent."""

    bits_per_s: int
    burst_bytes: int

    def most_bytes(self, seconds: float, packet_bytes: int) -> float:
        """Return the most that can pass within so many seconds, by the declared limit."""
        return self.burst_bytes + self.bits_per_s / 8 * seconds + packet_bytes

    def least_packets(self, sent: Sequence[tuple[float, int]], packet_bytes: int) -> int:
        """Return the packets that pass, of those that were sent: pairs of a time and a number.

        A sender that pauses longer than the burst lasts loses tokens, so a busy machine makes this less than
        ``most_bytes``.
        """
        tokens, last_s, passed = float(self.burst_bytes), sent[0][0], 0
        for time_s, count in sent:
            tokens = min(self.burst_bytes, tokens + self.bits_per_s / 8 * (time_s - last_s))
            last_s = time_s
            conforming = min(count, int(tokens // packet_bytes))
            tokens -= conforming * packet_bytes
            passed += conforming
        return passed
