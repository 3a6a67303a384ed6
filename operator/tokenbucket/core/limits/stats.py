"""Define the counters of a slot, sums of them, and the names under which users see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenbucket.core.limits.counters import Counters
from tokenbucket.core.limits.slot import SlotConfig


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
    def seen_bytes(self) -> int:
        """All bytes of the slot."""
        return self.conform_bytes + self.too_fast_bytes

    @property
    def admitted_packets(self) -> int:
        """Packets that the program admitted, at once or later.

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


@dataclass(frozen=True, slots=True)
class Exposed:
    """A counter as users see it. A counter of ``struct tb_stats`` needs no other place in Python."""

    counter: str
    """Attribute of :class:`Stats`."""
    meaning: str
    key: str = ""
    """Key in the output of ``tokenbucket status``. Empty if the counter is not in the output."""
    metric: str = ""
    """Metric without ``tokenbucket_pod_`` and ``_total``. Empty if there is no metric."""
    applies: Callable[[SlotConfig, Stats], bool] = lambda *_: True
    """Whether a limit has the metric. The counters tell whether it had it before a change."""
    per_unit: int = 1
    """Number of counts per unit of the metric."""

    @property
    def metric_name(self) -> str:
        """Return the full name of the metric, or an empty text."""
        return f"tokenbucket_pod_{self.metric}_total" if self.metric else ""

    def value(self, stats: Stats) -> int:
        """Return the counter."""
        return int(getattr(stats, self.counter))


def _delays(config: SlotConfig, stats: Stats) -> bool:
    return config.max_delay_q > 0 or stats.delayed_packets > 0


def _marks(config: SlotConfig, stats: Stats) -> bool:
    return config.dscp is not None or stats.marked_packets > 0


def _has_peers(config: SlotConfig, stats: Stats) -> bool:
    return config.per_peer is not None or stats.peer_too_fast_packets > 0


def _forwards(config: SlotConfig, stats: Stats) -> bool:
    return config.observe or config.dscp is not None or stats.forwarded_packets > 0


EXPOSED = (
    Exposed(
        "admitted_bytes",
        "Wire bytes that were admitted: forwarded at once or later, marked, or observed.",
        "admittedBytes",
        "admitted_bytes",
    ),
    Exposed("admitted_packets", "Wire packets that were admitted.", "admittedPackets", "admitted_packets"),
    Exposed(
        "dropped_bytes",
        "Wire bytes that exceeded the limit and were dropped.",
        "droppedBytes",
        "dropped_bytes",
    ),
    Exposed(
        "dropped_packets",
        "Wire packets that exceeded the limit and were dropped.",
        "droppedPackets",
        "dropped_packets",
    ),
    Exposed("conform_packets", "Packets within the limit.", "conformPackets"),
    Exposed("conform_bytes", "Wire bytes within the limit.", "conformBytes"),
    Exposed(
        "exceed_packets",
        "Excess packets, except delayed packets and packets within the reserve.",
        "exceedPackets",
    ),
    Exposed("exceed_bytes", "Wire bytes of these excess packets.", "exceedBytes"),
    Exposed(
        "marked_packets",
        "Admitted excess packets that were marked with the code point of `dscp`.",
        "markedPackets",
        "marked_packets",
        _marks,
    ),
    Exposed(
        "forwarded_packets",
        "Admitted excess packets that were marked or only observed.",
        "forwardedPackets",
        "forwarded_packets",
        _forwards,
    ),
    Exposed(
        "delayed_packets",
        "Admitted excess packets of a limit with Delay, including small packets, which leave at once.",
        "delayedPackets",
        "delayed_packets",
        _delays,
    ),
    Exposed("delayed_bytes", "Wire bytes of these delayed packets.", "delayedBytes"),
    Exposed(
        "delayed_bytes",
        "Wire bytes that a limit in Observe mode would delay.",
        metric="dry_run_delayed_bytes",
        applies=lambda config, _: config.observe and config.max_delay_q > 0,
    ),
    Exposed(
        "forwarded_bytes",
        "Wire bytes that a limit in Observe mode would drop or mark.",
        metric="dry_run_excess_bytes",
        applies=lambda config, _: config.observe,
    ),
    Exposed(
        "delayed_ns",
        "Sum of the delays of all packets.",
        "delayedNanoseconds",
        "delay_seconds",
        _delays,
        per_unit=10**9,
    ),
    Exposed(
        "ce_packets",
        "Delayed packets that got an ECN mark (CE).",
        "congestionMarkedPackets",
        "congestion_marked_packets",
        _delays,
    ),
    Exposed(
        "reserve_packets", "Excess packets that passed within the reserve of the node.", "reservePackets"
    ),
    Exposed("reserve_bytes", "Wire bytes within the reserve.", "reserveBytes"),
    Exposed(
        "contended_packets",
        "Packets that count as excess because too many CPUs charged the bucket at the same time.",
        "contendedPackets",
    ),
    Exposed(
        "peer_too_fast_packets",
        "Packets that exceeded the bucket of their peer.",
        "peerExceedPackets",
        "peer_exceed_packets",
        _has_peers,
    ),
    Exposed(
        "shared_peer_packets",
        "Conforming packets of peers without an entry. These peers share one bucket.",
        "sharedPeerPackets",
        "shared_peer_packets",
        _has_peers,
    ),
)
"""The counters of a limit that users see."""
