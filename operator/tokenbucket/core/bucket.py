"""What a limit amounts to: every default computed, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from tokenbucket import units
from tokenbucket.core.policy import ExceedAction, Limit, Mode, PerPeer

_NS_PER_S = 10**9
_FULL_SIZE_BYTES = 1514
_HELD_BYTES = 16 * 2**20
"""What a queue may hold of one pod's packets, whatever is declared."""
_DEFAULT_DELAY_NS = 25_000_000
_DELAY_PACKETS = 16
_BURST_NS = {ExceedAction.DELAY: 50_000_000, ExceedAction.MARK: 50_000_000, ExceedAction.DROP: 500_000_000}
_BURST_FLOOR_BYTES = {
    ExceedAction.DELAY: 32 * 1024,
    ExceedAction.MARK: 32 * 1024,
    ExceedAction.DROP: 128 * 1024,
}
"""A policer needs a deep bucket: TCP that loses packets at once never finds its rate."""
_BURST_FLOOR_PACKETS = 64


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
    per_peer: PerPeer | None


def bucket_of(limit: Limit, mode: Mode, *, action_in_force: ExceedAction) -> Bucket:
    """The limit with its defaults. ``action_in_force`` is Drop where Delay cannot be had."""
    bits, packets = limit.rate.bits_per_s, limit.rate.packets_per_s
    time_ns, floor = _BURST_NS[action_in_force], _BURST_FLOOR_BYTES[action_in_force]
    return Bucket(
        bits_per_s=bits,
        burst_bytes=limit.burst.size_bytes or (bits and max(floor, bits * time_ns // (8 * _NS_PER_S))),
        packets_per_s=packets,
        burst_packets=limit.burst.packets
        or (packets and max(_BURST_FLOOR_PACKETS, packets * time_ns // _NS_PER_S)),
        action=action_in_force,
        max_delay_ns=_max_delay_ns(limit) if action_in_force is ExceedAction.DELAY else None,
        dscp=limit.dscp,
        observe=mode is Mode.OBSERVE,
        per_peer=limit.per_peer,
    )


def _max_delay_ns(limit: Limit) -> int:
    bits = limit.rate.bits_per_s
    if not bits:
        return limit.max_delay_ns or _DEFAULT_DELAY_NS
    default = max(_DEFAULT_DELAY_NS, _DELAY_PACKETS * _FULL_SIZE_BYTES * 8 * _NS_PER_S // bits)
    return min(limit.max_delay_ns or default, _HELD_BYTES * 8 * _NS_PER_S // bits)


def describe(bucket: Bucket) -> str:
    """The bucket in words, such as "100Mbit/s, burst 625kB, Delay 25ms"."""
    parts = []
    if bucket.bits_per_s and bucket.burst_bytes:
        parts.append(
            f"{units.format_bit_rate(bucket.bits_per_s)}, burst {units.format_bytes(bucket.burst_bytes)}"
        )
    if bucket.packets_per_s and bucket.burst_packets:
        parts.append(
            f"{units.format_packet_rate(bucket.packets_per_s)}, burst {bucket.burst_packets} packets"
        )
    if bucket.per_peer:
        parts.append("each peer its own")
    detail = units.format_duration(bucket.max_delay_ns) if bucket.max_delay_ns else ""
    detail = f"DSCP {bucket.dscp}" if bucket.dscp is not None else detail
    parts.append(f"{bucket.action} {detail}".rstrip())
    return ", ".join(parts) + (" (observed only)" if bucket.observe else "")
