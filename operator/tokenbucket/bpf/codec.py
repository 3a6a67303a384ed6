"""Conversion between the structs of ``layout.h`` and the values of the core."""

from __future__ import annotations

import ctypes
import functools
import struct
from dataclasses import fields

from tokenbucket import layout
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import DeviceId, Owner, PeerConfig, Role, SlotConfig, SlotKey, Subject
from tokenbucket.core.limits.stats import Stats

_DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)
"""By value of ``enum tb_direction``."""
_ROLES = (Role.LIMIT, Role.GUARD)
"""By value of ``enum tb_role``."""
_WORD_BYTES = ctypes.sizeof(ctypes.c_uint64)
_STATS_WORDS = ctypes.sizeof(layout.Stats) // _WORD_BYTES
_STATS_OFFSETS = {
    field.name: getattr(layout.Stats, field.name).offset // _WORD_BYTES for field in fields(Stats)
}
"""Offsets of the counters in a ``struct tb_stats``, in words."""


def full_meters(now_ns: int, peers_epoch: int) -> layout.Meters:
    """Return the meters of buckets that are full at ``now_ns``, without peers.

    ``now_ns`` is a time of the monotonic clock. No other epoch of the slot has the number ``peers_epoch``.
    """
    full = gcra.never_used(now_ns)
    return layout.Meters(
        bytes_tat=full,
        packets_tat=full,
        reserve_tat=full,
        shared_peer=layout.Peer(full, full),
        peers_epoch=peers_epoch,
    )


def inherited_meters(meters: layout.Meters, now_ns: int) -> layout.Meters:
    """Return the meters of another layout version's bucket, with a new epoch of peers.

    The entries of the peers stay in the map of the other layout version.
    """
    new = full_meters(now_ns, now_ns)
    new.bytes_tat, new.packets_tat, new.reserve_tat = meters.bytes_tat, meters.packets_tat, meters.reserve_tat
    return new


def decode_stats(value: bytes) -> Stats:
    """Return the sums over the CPUs of an array of ``struct tb_stats``."""
    words = memoryview(value).cast("Q")
    return Stats(**{name: sum(words[offset::_STATS_WORDS]) for name, offset in _STATS_OFFSETS.items()})


@functools.lru_cache(maxsize=4096)
def decode_config(value: bytes) -> SlotConfig:
    """Return the configuration in a ``struct tb_config``.

    Cached, because a reconcile run reads all slots and few change between runs.
    """
    raw = layout.Config.from_buffer_copy(value)
    return SlotConfig(
        bits_per_s=raw.bits_per_s,
        bytes_burst_q=raw.bytes_burst_q,
        packets_per_s=raw.packets_per_s,
        packets_burst_q=raw.packets_burst_q,
        reserve_bits_per_s=raw.reserve_bits_per_s,
        reserve_burst_q=raw.reserve_burst_q,
        dscp=raw.dscp if raw.flags & layout.Flag.MARK else None,
        max_delay_q=raw.max_delay_q if raw.flags & layout.Flag.DELAY else 0,
        pacing=bool(raw.flags & layout.Flag.PACING),
        observe=bool(raw.flags & layout.Flag.OBSERVE),
        node_reserve=bool(raw.flags & layout.Flag.NODE_RESERVE),
        per_peer=_decode_peer_config(raw) if raw.flags & layout.Flag.PER_PEER else None,
    )


def _decode_peer_config(raw: layout.Config) -> PeerConfig:
    return PeerConfig(
        bits_per_s=raw.peer_bits_per_s,
        bytes_burst_q=raw.peer_bytes_burst_q,
        packets_per_s=raw.peer_packets_per_s,
        packets_burst_q=raw.peer_packets_burst_q,
        ipv4_prefix_length=raw.peer_ipv4_prefix_length,
        ipv6_prefix_length=raw.peer_ipv6_prefix_length,
        is_destination=bool(raw.flags & layout.Flag.PEER_IS_DESTINATION),
    )


def encode_config(config: SlotConfig) -> layout.Config:
    """Return the ``struct tb_config`` of a configuration."""
    raw = layout.Config(
        bytes_scale=gcra.bytes_scale(config.bits_per_s),
        bytes_burst_q=config.bytes_burst_q,
        packets_scale=gcra.packets_scale(config.packets_per_s),
        packets_burst_q=config.packets_burst_q,
        reserve_scale=gcra.bytes_scale(config.reserve_bits_per_s),
        reserve_burst_q=config.reserve_burst_q,
        flags=_flags(config),
        dscp=config.dscp or 0,
        max_delay_q=config.max_delay_q,
        bits_per_s=config.bits_per_s,
        packets_per_s=config.packets_per_s,
        reserve_bits_per_s=config.reserve_bits_per_s,
    )
    if config.per_peer:
        _encode_peer_config(raw, config.per_peer)
    return raw


def _encode_peer_config(raw: layout.Config, peer: PeerConfig) -> None:
    raw.peer_bits_per_s, raw.peer_packets_per_s = peer.bits_per_s, peer.packets_per_s
    raw.peer_bytes_scale = gcra.bytes_scale(peer.bits_per_s)
    raw.peer_bytes_burst_q = peer.bytes_burst_q
    raw.peer_packets_scale = gcra.packets_scale(peer.packets_per_s)
    raw.peer_packets_burst_q = peer.packets_burst_q
    raw.peer_ipv4_prefix_length = peer.ipv4_prefix_length
    raw.peer_ipv6_prefix_length = peer.ipv6_prefix_length
    (raw.peer_ipv4_mask,) = struct.unpack("=Q", _mask(peer.ipv4_prefix_length, 8))
    raw.peer_ipv6_mask[:] = struct.unpack("=QQ", _mask(peer.ipv6_prefix_length, 16))


def _mask(prefix_length: int, size_bytes: int) -> bytes:
    """Return a mask of ``prefix_length`` leading bits, in network byte order."""
    bits = 8 * size_bytes
    return (((1 << prefix_length) - 1) << (bits - prefix_length)).to_bytes(size_bytes, "big")


def _flags(config: SlotConfig) -> int:
    return (
        config.observe * layout.Flag.OBSERVE
        | config.node_reserve * layout.Flag.NODE_RESERVE
        | (config.dscp is not None) * layout.Flag.MARK
        | (config.max_delay_q > 0) * layout.Flag.DELAY
        | config.pacing * layout.Flag.PACING
        | (config.per_peer is not None) * layout.Flag.PER_PEER
        | bool(config.per_peer and config.per_peer.is_destination) * layout.Flag.PEER_IS_DESTINATION
    )


@functools.lru_cache(maxsize=4096)
def decode_owner(value: bytes) -> Owner:
    """Return the owner in a ``struct tb_owner``. Cached, as :func:`decode_config`."""
    raw = layout.Owner.from_buffer_copy(value)
    name, uid = raw.name.decode(errors="replace"), raw.uid.decode(errors="replace")
    subject: Subject
    if raw.kind == layout.OwnerKind.DEVICE:
        subject = DeviceId(int(uid or 0), name)
    else:
        subject = PodId(raw.namespace_.decode(errors="replace"), name, uid)
    direction, role = _DIRECTIONS[raw.direction % len(_DIRECTIONS)], _ROLES[raw.role % len(_ROLES)]
    key = SlotKey(subject, direction, role)
    return Owner(key, raw.policy.decode(errors="replace"), raw.generation)


def encode_owner(owner: Owner) -> layout.Owner:
    """Return the ``struct tb_owner`` of an owner."""
    subject = owner.key.subject
    raw = layout.Owner(
        direction=_DIRECTIONS.index(owner.key.direction),
        role=_ROLES.index(owner.key.role),
        generation=owner.generation,
        name=subject.name.encode(),
        policy=owner.policy.encode(),
    )
    if isinstance(subject, DeviceId):
        raw.kind, raw.uid = layout.OwnerKind.DEVICE, str(subject.netns_inode).encode()
    else:
        raw.kind, raw.uid = layout.OwnerKind.POD, subject.uid.encode()
        raw.namespace_ = subject.namespace.encode()
    return raw
