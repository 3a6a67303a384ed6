"""Conversion between the structs of ``layout.h`` and the values of the core."""

from __future__ import annotations

import ctypes
import functools
import operator
import struct
from dataclasses import fields

from tokenbucket import layout
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import (
    BucketConfig,
    DeviceId,
    Owner,
    PeerConfig,
    Role,
    SlotConfig,
    SlotKey,
    Subject,
)
from tokenbucket.core.limits.stats import Stats

_DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)
"""By value of ``enum tb_direction``."""
_ROLES = (Role.LIMIT, Role.GUARD)
"""By value of ``enum tb_role``."""
_WORD_BYTES = ctypes.sizeof(ctypes.c_uint64)
STATS_WORDS = ctypes.sizeof(layout.Stats) // _WORD_BYTES
"""Length of a ``struct tb_stats``, in words."""
STATS_OFFSETS = {
    field.name: getattr(layout.Stats, field.name).offset // _WORD_BYTES for field in fields(Stats)
}
"""Offsets of the counters in a ``struct tb_stats``, in words."""
_STATS_FIELDS = operator.itemgetter(*STATS_OFFSETS.values())
"""Selects the counters from the words of a ``struct tb_stats``."""
_QUALIFIED = {"dscp", "max_delay_q"}
"""Fields of ``struct tb_config`` that have a meaning with a flag only."""


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


def full_flows(now_ns: int) -> layout.Flows:
    """Return the state of flows without packets, and full buckets of small packets, at ``now_ns``."""
    full = gcra.never_used(now_ns)
    return layout.Flows(small_bytes_tat=full, small_packets_tat=full)


def inherited_meters(meters: layout.Meters, now_ns: int) -> layout.Meters:
    """Return the meters of another layout version's bucket, with a new epoch of peers.

    The entries of the peers stay in the map of the other layout version.
    """
    new = full_meters(now_ns, now_ns)
    new.bytes_tat, new.packets_tat, new.reserve_tat = meters.bytes_tat, meters.packets_tat, meters.reserve_tat
    return new


def decode_stats(value: bytes) -> Stats:
    """Return the sums over the CPUs of an array of ``struct tb_stats``."""
    words = memoryview(value).cast("Q").tolist()
    of_cpus = (words[start : start + STATS_WORDS] for start in range(0, len(words), STATS_WORDS))
    return Stats(*_STATS_FIELDS([sum(column) for column in zip(*of_cpus, strict=True)]))


@functools.lru_cache(maxsize=4096)
def decode_config(value: bytes) -> SlotConfig:
    """Return the configuration in a ``struct tb_config``.

    Cached, because a reconcile run reads all slots and few change between runs.
    """
    raw = layout.Config.from_buffer_copy(value)
    return SlotConfig(
        **_same_named(raw, SlotConfig),
        dscp=raw.dscp if raw.flags & layout.Flag.MARK else None,
        max_delay_q=raw.max_delay_q if raw.flags & layout.Flag.DELAY else 0,
        pacing=bool(raw.flags & layout.Flag.PACING),
        observe=bool(raw.flags & layout.Flag.OBSERVE),
        observe_by_mode=bool(raw.flags & layout.Flag.OBSERVE_BY_MODE),
        node_reserve=bool(raw.flags & layout.Flag.NODE_RESERVE),
        per_peer=_decode_peer_config(raw) if raw.flags & layout.Flag.PER_PEER else None,
    )


def _decode_peer_config(raw: layout.Config) -> PeerConfig:
    is_destination = bool(raw.flags & layout.Flag.PEER_IS_DESTINATION)
    return PeerConfig(**_same_named(raw, PeerConfig, "peer_"), is_destination=is_destination)


def encode_config(config: SlotConfig) -> layout.Config:
    """Return the ``struct tb_config`` of a configuration."""
    raw = layout.Config(
        **_same_named(config, SlotConfig),
        bytes_scale=gcra.bytes_scale(config.bits_per_s),
        packets_scale=gcra.packets_scale(config.packets_per_s),
        reserve_scale=gcra.bytes_scale(config.reserve_bits_per_s),
        flags=_flags(config),
        dscp=config.dscp or 0,
        max_delay_q=config.max_delay_q,
    )
    if config.per_peer:
        _encode_peer_config(raw, config.per_peer)
    return raw


def config_steps(before: bytes, after: bytes) -> list[bytes]:
    """Return the values of ``struct tb_config`` to write one after the other, from ``before`` to ``after``.

    The program can read words of two values. The fields that ``after`` uses come first, then the flags, then
    zeros in the fields that only ``before`` uses: every mixture has the meters and fields of its flags.
    """
    old, new = memoryview(before).cast("Q"), memoryview(after).cast("Q")
    flags = layout.Config.flags.offset // _WORD_BYTES
    both = [now or then for then, now in zip(old, new, strict=True)]
    steps = []
    for each in (old, new):
        both[flags] = each[flags]
        steps.append(struct.pack(f"={len(both)}Q", *both))
    return [value for value, last in zip([*steps, after], [before, *steps], strict=True) if value != last]


_SCALES = ("bytes_scale", "packets_scale", "peer_bytes_scale", "peer_packets_scale")


def replaces_meters(before: bytes, after: bytes) -> bool:
    """Return whether no meter is in both values of ``struct tb_config``."""
    old, new = layout.Config.from_buffer_copy(before), layout.Config.from_buffer_copy(after)
    pairs = [(getattr(old, name), getattr(new, name)) for name in _SCALES]
    return any(then for then, _ in pairs) and not any(then and now for then, now in pairs)


def _encode_peer_config(raw: layout.Config, peer: PeerConfig) -> None:
    for name in _same_named(raw, PeerConfig, "peer_"):
        setattr(raw, f"peer_{name}", getattr(peer, name))
    raw.peer_bytes_scale = gcra.bytes_scale(peer.bits_per_s)
    raw.peer_packets_scale = gcra.packets_scale(peer.packets_per_s)
    (raw.peer_ipv4_mask,) = struct.unpack("=Q", _mask(peer.ipv4_prefix_length, 8))
    raw.peer_ipv6_mask[:] = struct.unpack("=QQ", _mask(peer.ipv6_prefix_length, 16))


def _same_named(source: object, kind: type[BucketConfig], prefix: str = "") -> dict[str, int]:
    """Return the fields of a configuration that ``struct tb_config`` has too, after a prefix."""
    names = {field.name for field in fields(kind)} - _QUALIFIED
    return {name: getattr(source, prefix + name) for name in names if hasattr(layout.Config, prefix + name)}


def _mask(prefix_length: int, size_bytes: int) -> bytes:
    """Return a mask of ``prefix_length`` leading bits, in network byte order."""
    bits = 8 * size_bytes
    return (((1 << prefix_length) - 1) << (bits - prefix_length)).to_bytes(size_bytes, "big")


def _flags(config: SlotConfig) -> int:
    return (
        config.observe * layout.Flag.OBSERVE
        | config.observe_by_mode * layout.Flag.OBSERVE_BY_MODE
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
        number = _number(raw.namespace_.decode(errors="replace"))
        subject = DeviceId(int(uid or 0), name, raw.generation, number)
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
        raw.generation = subject.ifindex
        raw.namespace_ = ":".join(map(str, subject.number or ())).encode()
    else:
        raw.kind, raw.uid = layout.OwnerKind.POD, subject.uid.encode()
        raw.namespace_ = subject.namespace.encode()
    return raw


def _number(text: str) -> tuple[int, int] | None:
    """Return the inode of a namespace and a number in it. Earlier versions wrote none."""
    inode, colon, number = text.partition(":")
    return (int(inode), int(number)) if colon and inode.isdecimal() and number.isdecimal() else None
