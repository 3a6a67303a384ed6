"""Compute the defaults of a limit, and describe the result in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tokenbucket import units
from tokenbucket.core.api.policy import Burst, ExceedAction, Limit, Mode, PerPeer, Rate
from tokenbucket.core.limits.queue_bound import (
    FULL_SIZE_BYTES,
    HELD_BYTES,
    Meter,
    longest_delay_ns,
    permits_pacing,
)

_NS_PER_S = 10**9
_DEFAULT_DELAY_NS = 100_000_000
_DELAY_PACKETS = 16
_BURST_NS = {ExceedAction.DELAY: 50_000_000, ExceedAction.MARK: 50_000_000, ExceedAction.DROP: 500_000_000}
_BURST_FLOOR_BYTES = {
    ExceedAction.DELAY: 32 * 1024,
    ExceedAction.MARK: 32 * 1024,
    ExceedAction.DROP: 128 * 1024,
}
"""Drop needs a deep bucket: without one, TCP reaches only a fraction of the rate."""
_BURST_FLOOR_PACKETS = 64
_BURST_CEILING = (4 * 2**30, 2**24)
"""Maximum burst in bytes and in packets, the same as for a declared burst."""
_BURST_CEILING_ABOVE_PEERS = (HELD_BYTES // 4, HELD_BYTES // 4 // FULL_SIZE_BYTES)
"""The same for the pod with perPeer and Delay: the buckets of peers can queue the whole burst of the pod."""
_USUAL_LENGTHS = (32, 64)


@dataclass(frozen=True, slots=True)
class Meters:
    """The rates and bursts of a bucket. ``None`` means that the bucket has no such meter."""

    bits_per_s: int | None
    burst_bytes: int | None
    packets_per_s: int | None
    burst_packets: int | None


@dataclass(frozen=True, slots=True)
class PeerBucket(Meters):
    """The bucket of each peer."""

    ipv4_prefix_length: int
    ipv6_prefix_length: int


@dataclass(frozen=True, slots=True)
class Bucket(Meters):
    """A limit with its defaults. ``None`` means that the limit has no such value."""

    action: ExceedAction
    max_delay_ns: int | None
    longest_backlog_ns: int | None
    """Of packets that depart in the turn of their flow; ``None`` with a FIFO queue."""
    dscp: int | None
    observe: bool
    per_peer: PeerBucket | None
    pacing: bool = False
    """Whether departure times that other programs set count."""


def bucket_of(limit: Limit, mode: Mode, *, action: ExceedAction) -> Bucket:
    """Return the limit with its defaults. ``action`` is Drop if the limit declares Delay and the
    interface cannot delay packets.
    """
    delays = action is ExceedAction.DELAY
    max_delay_ns = _max_delay_ns(limit) if delays else None
    longest_backlog_ns = _longest_backlog_ns(limit) if delays else None
    longest_ns = longest_backlog_ns or max_delay_ns
    return Bucket(
        **asdict(_own_meters(limit, action)),
        action=action,
        max_delay_ns=max_delay_ns,
        longest_backlog_ns=longest_backlog_ns,
        dscp=limit.dscp,
        observe=mode is Mode.OBSERVE,
        per_peer=_peer_bucket_of(limit.per_peer, action) if limit.per_peer else None,
        pacing=longest_ns is not None and permits_pacing(*_delayed_meters(limit), longest_ns),
    )


def _peer_bucket_of(peer: PerPeer, action: ExceedAction) -> PeerBucket:
    meters = _meters_of(peer.rate, peer.burst, action)
    return PeerBucket(
        **asdict(meters),
        ipv4_prefix_length=peer.ipv4_prefix_length,
        ipv6_prefix_length=peer.ipv6_prefix_length,
    )


def action_of(limit: Limit) -> ExceedAction:
    """Return the possible action: Drop if nothing bounds the queued packets of Delay."""
    delays = limit.exceed_action is ExceedAction.DELAY
    return ExceedAction.DROP if delays and _longest_delay_ns(limit) is None else limit.exceed_action


def _own_meters(limit: Limit, action: ExceedAction) -> Meters:
    above_peers = limit.per_peer and action is ExceedAction.DELAY
    ceiling = _BURST_CEILING_ABOVE_PEERS if above_peers else _BURST_CEILING
    return _meters_of(limit.rate, limit.burst, action, ceiling)


def _meters_of(
    rate: Rate, burst: Burst, action: ExceedAction, ceiling: tuple[int, int] = _BURST_CEILING
) -> Meters:
    """Return the rates with the declared bursts, or with bursts computed from the rates."""
    time_ns = _BURST_NS[action]
    ceiling_bytes, ceiling_packets = ceiling
    size_bytes = rate.bits_per_s and max(
        _BURST_FLOOR_BYTES[action], min(rate.bits_per_s * time_ns // (8 * _NS_PER_S), ceiling_bytes)
    )
    packets = rate.packets_per_s and max(
        _BURST_FLOOR_PACKETS, min(rate.packets_per_s * time_ns // _NS_PER_S, ceiling_packets)
    )
    return Meters(
        rate.bits_per_s, burst.size_bytes or size_bytes, rate.packets_per_s, burst.packets or packets
    )


def _max_delay_ns(limit: Limit) -> int:
    """Return the declared or computed maximum delay. The default admits a window of 16 full-size packets at
    the lower of the rates of the pod and of a peer.
    """
    rates = [limit.rate.bits_per_s, limit.per_peer.rate.bits_per_s if limit.per_peer else None]
    windows_ns = (_DELAY_PACKETS * FULL_SIZE_BYTES * 8 * _NS_PER_S // rate for rate in rates if rate)
    delay_ns = limit.max_delay_ns or max((_DEFAULT_DELAY_NS, *windows_ns))
    return min(delay_ns, _longest_delay_ns(limit) or delay_ns)


def _longest_backlog_ns(limit: Limit) -> int | None:
    """Return 1.5 times the maximum delay with a fair queue. The queue is still bounded."""
    if not limit.is_fair:
        return None
    backlog_ns = 3 * _max_delay_ns(limit) // 2
    return min(backlog_ns, _longest_delay_ns(limit) or backlog_ns)


def _longest_delay_ns(limit: Limit) -> int | None:
    return longest_delay_ns(*_delayed_meters(limit))


def _delayed_meters(limit: Limit) -> tuple[list[Meter], list[Meter]]:
    """Return the meters of the pod and of each peer with Delay."""
    own, peer = _own_meters(limit, ExceedAction.DELAY), limit.per_peer
    of_peers = _queued(_meters_of(peer.rate, peer.burst, ExceedAction.DELAY)) if peer else []
    return _queued(own), of_peers


def _queued(meters: Meters) -> list[Meter]:
    found = []
    if meters.bits_per_s and meters.burst_bytes:
        found.append(Meter(meters.bits_per_s, meters.burst_bytes))
    if meters.packets_per_s and meters.burst_packets:
        found.append(Meter.of_packets(meters.packets_per_s, meters.burst_packets))
    return found


def describe(bucket: Bucket) -> str:
    """Return the bucket in words, such as "100Mbit/s, burst 625kB, Delay 100ms"."""
    parts = _describe_meters(bucket)
    if bucket.per_peer:
        parts.append(f"{_each(bucket.per_peer)} {', '.join(_describe_meters(bucket.per_peer))}")
    detail = units.format_duration(bucket.max_delay_ns) if bucket.max_delay_ns else ""
    detail += " Fifo" if bucket.max_delay_ns and not bucket.longest_backlog_ns and not bucket.per_peer else ""
    detail = f"DSCP {bucket.dscp}" if bucket.dscp is not None else detail
    parts.append(f"{bucket.action} {detail}".rstrip())
    return ", ".join(parts) + (" (observed only)" if bucket.observe else "")


def as_declared(limit: Limit, mode: Mode) -> str:
    """Return a limit in words with its defaults, for an interface that can delay packets."""
    return describe(bucket_of(limit, mode, action=action_of(limit)))


def _describe_meters(bucket: Meters) -> list[str]:
    parts = []
    if bucket.bits_per_s and bucket.burst_bytes:
        parts.append(
            f"{units.format_bit_rate(bucket.bits_per_s)}, burst {units.format_bytes(bucket.burst_bytes)}"
        )
    if bucket.packets_per_s and bucket.burst_packets:
        parts.append(
            f"{units.format_packet_rate(bucket.packets_per_s)}, burst {bucket.burst_packets} packets"
        )
    return parts


def _each(bucket: PeerBucket) -> str:
    """Return "per peer", or a text such as "per peer (/24, /64)" if the prefixes are not the default."""
    lengths = (bucket.ipv4_prefix_length, bucket.ipv6_prefix_length)
    return "per peer" if lengths == _USUAL_LENGTHS else "per peer (/{}, /{})".format(*lengths)
