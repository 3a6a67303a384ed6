"""What a limit amounts to: every default computed, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from tokenbucket import units
from tokenbucket.core.policy import Burst, ExceedAction, Limit, Mode, PerPeer, Rate

_NS_PER_S = 10**9
_FULL_SIZE_BYTES = 1514
_HELD_BYTES = 16 * 2**20
"""What a queue may hold of one pod's packets, whatever is declared."""
_DEFAULT_DELAY_NS = 100_000_000
_DELAY_PACKETS = 16
_BURST_NS = {ExceedAction.DELAY: 50_000_000, ExceedAction.MARK: 50_000_000, ExceedAction.DROP: 500_000_000}
_BURST_FLOOR_BYTES = {
    ExceedAction.DELAY: 32 * 1024,
    ExceedAction.MARK: 32 * 1024,
    ExceedAction.DROP: 128 * 1024,
}
"""A policer needs a deep bucket: TCP that loses packets at once never finds its rate."""
_BURST_FLOOR_PACKETS = 64
_BURST_CEILING_BYTES = 4 * 2**30
_BURST_CEILING_PACKETS = 2**24
"""As much as may be declared."""
_USUAL_LENGTHS = (32, 64)


@dataclass(frozen=True, slots=True)
class PeerBucket:
    """The bucket that each peer has. ``None`` is a meter that it does not have."""

    bits_per_s: int | None
    burst_bytes: int | None
    packets_per_s: int | None
    burst_packets: int | None
    ipv4_prefix_length: int
    ipv6_prefix_length: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit in force. ``None`` is a meter, or a number, that the limit does not have."""

    bits_per_s: int | None
    burst_bytes: int | None
    packets_per_s: int | None
    burst_packets: int | None
    action: ExceedAction
    max_delay_ns: int | None
    dscp: int | None
    observe: bool
    per_peer: PeerBucket | None


def bucket_of(limit: Limit, mode: Mode, *, action_in_force: ExceedAction) -> Bucket:
    """The limit with its defaults. ``action_in_force`` is Drop where Delay cannot be had."""
    burst_bytes, burst_packets = _bursts(limit.rate, limit.burst, action_in_force)
    return Bucket(
        bits_per_s=limit.rate.bits_per_s,
        burst_bytes=burst_bytes,
        packets_per_s=limit.rate.packets_per_s,
        burst_packets=burst_packets,
        action=action_in_force,
        max_delay_ns=_max_delay_ns(limit) if action_in_force is ExceedAction.DELAY else None,
        dscp=limit.dscp,
        observe=mode is Mode.OBSERVE,
        per_peer=_peer_bucket_of(limit.per_peer, action_in_force) if limit.per_peer else None,
    )


def _peer_bucket_of(per_peer: PerPeer, action: ExceedAction) -> PeerBucket:
    burst_bytes, burst_packets = _bursts(per_peer.rate, per_peer.burst, action)
    return PeerBucket(
        bits_per_s=per_peer.rate.bits_per_s,
        burst_bytes=burst_bytes,
        packets_per_s=per_peer.rate.packets_per_s,
        burst_packets=burst_packets,
        ipv4_prefix_length=per_peer.ipv4_prefix_length,
        ipv6_prefix_length=per_peer.ipv6_prefix_length,
    )


def _bursts(rate: Rate, burst: Burst, action: ExceedAction) -> tuple[int | None, int | None]:
    """Bytes and packets that a bucket holds, declared or by default."""
    time_ns = _BURST_NS[action]
    size_bytes = rate.bits_per_s and max(
        _BURST_FLOOR_BYTES[action],
        min(rate.bits_per_s * time_ns // (8 * _NS_PER_S), _BURST_CEILING_BYTES),
    )
    packets = rate.packets_per_s and max(
        _BURST_FLOOR_PACKETS, min(rate.packets_per_s * time_ns // _NS_PER_S, _BURST_CEILING_PACKETS)
    )
    return burst.size_bytes or size_bytes, burst.packets or packets


def _max_delay_ns(limit: Limit) -> int:
    """By default long enough for a window of packets at the slower of the pod's rate and a peer's."""
    rates = [limit.rate.bits_per_s, limit.per_peer.rate.bits_per_s if limit.per_peer else None]
    bits = [rate for rate in rates if rate]
    if not bits:
        return limit.max_delay_ns or _DEFAULT_DELAY_NS
    default = max(_DEFAULT_DELAY_NS, _DELAY_PACKETS * _FULL_SIZE_BYTES * 8 * _NS_PER_S // min(bits))
    return min(limit.max_delay_ns or default, _HELD_BYTES * 8 * _NS_PER_S // max(bits))


def describe(bucket: Bucket) -> str:
    """The bucket in words, such as "100Mbit/s, burst 625kB, Delay 100ms"."""
    parts = _meters(bucket)
    if bucket.per_peer:
        parts.append(f"{_each(bucket.per_peer)} {', '.join(_meters(bucket.per_peer))}")
    detail = units.format_duration(bucket.max_delay_ns) if bucket.max_delay_ns else ""
    detail = f"DSCP {bucket.dscp}" if bucket.dscp is not None else detail
    parts.append(f"{bucket.action} {detail}".rstrip())
    return ", ".join(parts) + (" (observed only)" if bucket.observe else "")


def _meters(bucket: Bucket | PeerBucket) -> list[str]:
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
    """Such as "per peer", or "per peer (/24, /64)" where that is not what everybody expects."""
    lengths = (bucket.ipv4_prefix_length, bucket.ipv6_prefix_length)
    return "per peer" if lengths == _USUAL_LENGTHS else "per peer (/{}, /{})".format(*lengths)
