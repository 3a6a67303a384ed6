"""The slots in the kernel's maps, read and written as the core's values.

The order of writes makes every moment safe: a slot gets its meters and counters before its configuration,
and its owner last; it loses its owner first. A slot without an owner is free, whatever else it holds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.layout_upgrade import PreviousLayouts
from tokenbucket.bpf.pins import MAPS, HookProgram, Pins
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import (
    NO_SLOT,
    DeviceId,
    Owner,
    PeerConfig,
    Slot,
    SlotConfig,
    SlotKey,
    Subject,
)
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.hook import Hook

_DIRECTIONS = (Direction.INGRESS, Direction.EGRESS)
_WORD = ctypes.sizeof(ctypes.c_uint64)
_STATS_WORDS = ctypes.sizeof(layout.Stats) // _WORD
_STATS_PLACES = {field.name: getattr(layout.Stats, field.name).offset // _WORD for field in fields(Stats)}
"""Of each counter among the words of one CPU."""


@dataclass(frozen=True, slots=True)
class Meters:
    """Theoretical arrival times in quanta: the state of a slot's buckets."""

    bytes_tat: int
    packets_tat: int
    reserve_tat: int


def monotonic_ns() -> int:
    """The clock that the program reads (``bpf_ktime_get_ns``)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Slots:
    """The maps of one layout version, open. Use as a context manager, from one thread at a time."""

    def __init__(self, pins: Pins) -> None:
        """Opens the pinned maps. Raises KernelError (ENOENT) when nothing is loaded, LoadError when the
        pins are not ours.
        """
        self.count = pins.check_maps() or 0
        self.clock = monotonic_ns
        """The clock that the program reads, in ns."""
        self._slowed: dict[tuple[int, str], int] = {}
        """The words of meters when their rates were last lowered."""
        self._fds = {name: syscall.open_pin(pins.maps / name) for name in MAPS}
        self._cpus = possible_cpus()
        self.elders = PreviousLayouts(pins, lambda owner: _owner(owner).key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the maps. The pins stay."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def read(self) -> dict[int, Slot]:
        """All slots in use."""
        owners, configs = self._read_map("tb_owners"), self._read_map("tb_config")
        stride, config_stride = MAPS["tb_owners"].value_size, MAPS["tb_config"].value_size
        in_use = [index for index, kind in enumerate(owners[::stride]) if kind]
        return {
            index: Slot(
                _owner(owners[index * stride : (index + 1) * stride]),
                _config(configs[index * config_stride : (index + 1) * config_stride]),
            )
            for index in in_use
        }

    def write(self, index: int, slot: Slot, *, fresh: bool) -> None:
        """Writes a slot; when ``fresh``, with zero counters, no peers and a full bucket, or the bucket that
        the limit has in another layout version; else all stay as they are, but for a debt at a higher rate.
        """
        if fresh:
            inherited = self.elders.meters(slot.owner.key)
            meters = _new_peers(inherited) if inherited else _full_meters(self.clock())
            self._write("tb_meters", index, meters)
            self._write("tb_stats", index, bytes(MAPS["tb_stats"].value_size * self._cpus))
        else:
            self._cut_debts(index, slot.config)
        self._write("tb_config", index, bytes(_config_struct(slot.config)))
        self._write("tb_owners", index, bytes(_owner_struct(slot.owner)))

    def named(self, slot: int, program_id: int) -> int:
        """The slot that a filter names with that number; NO_SLOT where it runs a program of another layout
        version, which means a slot of its own maps.
        """
        return NO_SLOT if program_id in self.elders.program_ids else slot

    def limits_device_in_another_layout(self, slot: int, program_id: int) -> bool:
        """Whether a filter that names that slot is the limit of a device in another layout version."""
        return (program_id, slot) in self.elders.of_devices

    def catch_up(self, index: int) -> None:
        """Charges a slot with what the limit's bucket in another layout version has let through meanwhile."""
        slot = Slot(_owner(self._lookup("tb_owners", index, 1)), _config(self._lookup("tb_config", index, 1)))
        charged = self.elders.charge(slot, lambda: self._raw_meters(index), self.clock())
        if charged:
            self._write("tb_meters", index, bytes(charged))

    def fill(self, index: int, now_ns: int) -> None:
        """Fills a slot's buckets as of that time of the monotonic clock, and forgets its peers."""
        self._write("tb_meters", index, _full_meters(now_ns))

    def free(self, index: int) -> None:
        """Gives a slot back. A filter that still names it lets everything pass."""
        self._write("tb_owners", index, bytes(MAPS["tb_owners"].value_size))
        self._write("tb_config", index, bytes(MAPS["tb_config"].value_size))

    def meters(self, index: int) -> Meters:
        """The state of a slot's buckets."""
        raw = self._raw_meters(index)
        return Meters(raw.bytes_tat, raw.packets_tat, raw.reserve_tat)

    def peers_epoch(self, index: int) -> int:
        """The epoch of a slot's peers: entries of another one were somebody else's."""
        return int(self._raw_meters(index).peers_epoch)

    def stats(self, index: int) -> Stats:
        """The counters of a slot, summed over the CPUs."""
        words = memoryview(self._lookup("tb_stats", index, self._cpus)).cast("Q")
        return Stats(**{name: sum(words[place::_STATS_WORDS]) for name, place in _STATS_PLACES.items()})

    def counted(self) -> list[tuple[Slot, Stats]]:
        """All slots in use with their counters. One that changes hands meanwhile is left out, as its counters
        may be another's.
        """
        before = self.read()
        stats = {index: self.stats(index) for index in before}
        after = self.read()
        return [
            (after[index], stats[index])
            for index, slot in before.items()
            if index in after and after[index].owner.key == slot.owner.key
        ]

    def _cut_debts(self, index: int, after: SlotConfig) -> None:
        """A debt that a slow rate would take a minute to pay must not hold up a fast one."""
        changes = after.changes_of_rates(_config(self._lookup("tb_config", index, 1)))
        if not changes:
            return
        meters, now_q = self._raw_meters(index), gcra.word_of(self.clock())
        words = bytes(meters)
        for meter, scales, most_q in changes:
            tat = getattr(meters, meter)
            if 0 < scales[0] < scales[1]:
                self._slowed[index, meter] = tat
            slowed_tat = self._slowed.get((index, meter), now_q)
            setattr(meters, meter, gcra.at_new_rate(tat, slowed_tat, now_q, scales, most_q))
        if bytes(meters) != words:
            self._write("tb_meters", index, bytes(meters))

    def _raw_meters(self, index: int) -> layout.Meters:
        return layout.Meters.from_buffer_copy(self._lookup("tb_meters", index, 1))

    def _read_map(self, name: str) -> bytes:
        return syscall.lookup_all(self._fds[name], self.count, MAPS[name].value_size, name)

    def _lookup(self, name: str, index: int, copies: int) -> bytes:
        return syscall.lookup(self._fds[name], index, MAPS[name].value_size * copies, name)

    def _write(self, name: str, index: int, value: bytes) -> None:
        syscall.update(self._fds[name], index, value, name)


class Programs:
    """The programs of one build, open. Use from one thread at a time."""

    def __init__(self, pins: Pins, build: str) -> None:
        """Opens the pinned programs. Raises KernelError (ENOENT) when that build is not loaded."""
        folder = pins.build(build)
        self.fds: Mapping[Hook, int] = {
            Hook.EGRESS: syscall.open_pin(folder / HookProgram.AT_EGRESS_HOOK),
            Hook.INGRESS: syscall.open_pin(folder / HookProgram.AT_INGRESS_HOOK),
        }
        self.ids = {hook: syscall.program_info(fd).id for hook, fd in self.fds.items()}

    def close(self) -> None:
        """Closes the programs. The pins stay."""
        for fd in self.fds.values():
            os.close(fd)


def possible_cpus() -> int:
    """CPUs that per-CPU values have room for. The kernel numbers them without gaps up to the last."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def _full_meters(now_ns: int) -> bytes:
    full = gcra.never_used(now_ns)
    return bytes(
        layout.Meters(
            bytes_tat=full,
            packets_tat=full,
            reserve_tat=full,
            shared_peer=layout.Peer(full, full),
            peers_epoch=monotonic_ns(),
        )
    )


def _new_peers(meters: layout.Meters) -> bytes:
    """Those meters with a new epoch of peers: entries of another layout version stay there."""
    now_ns = monotonic_ns()
    full = gcra.never_used(now_ns)
    return bytes(
        layout.Meters(
            meters.bytes_tat, meters.packets_tat, meters.reserve_tat, layout.Peer(full, full), now_ns
        )
    )


@functools.lru_cache(maxsize=4096)
def _config(value: bytes) -> SlotConfig:
    """Remembered, because a pass reads all slots and few have changed since the last."""
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
        observe=bool(raw.flags & layout.Flag.OBSERVE),
        node_reserve=bool(raw.flags & layout.Flag.NODE_RESERVE),
        per_peer=_peer_config(raw) if raw.flags & layout.Flag.PER_PEER else None,
    )


def _peer_config(raw: layout.Config) -> PeerConfig:
    return PeerConfig(
        bits_per_s=raw.peer_bits_per_s,
        bytes_burst_q=raw.peer_bytes_burst_q,
        packets_per_s=raw.peer_packets_per_s,
        packets_burst_q=raw.peer_packets_burst_q,
        ipv4_prefix_length=raw.peer_ipv4_prefix_length,
        ipv6_prefix_length=raw.peer_ipv6_prefix_length,
        is_destination=bool(raw.flags & layout.Flag.PEER_IS_DESTINATION),
    )


def _config_struct(config: SlotConfig) -> layout.Config:
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
        _put_peer_config(raw, config.per_peer)
    return raw


def _put_peer_config(raw: layout.Config, peer: PeerConfig) -> None:
    raw.peer_bits_per_s, raw.peer_packets_per_s = peer.bits_per_s, peer.packets_per_s
    raw.peer_bytes_scale = gcra.bytes_scale(peer.bits_per_s)
    raw.peer_bytes_burst_q = peer.bytes_burst_q
    raw.peer_packets_scale = gcra.packets_scale(peer.packets_per_s)
    raw.peer_packets_burst_q = peer.packets_burst_q
    raw.peer_ipv4_prefix_length = peer.ipv4_prefix_length
    raw.peer_ipv6_prefix_length = peer.ipv6_prefix_length
    raw.peer_ipv4_mask[:] = _mask(peer.ipv4_prefix_length, 8)
    raw.peer_ipv6_mask[:] = _mask(peer.ipv6_prefix_length, 16)


def _mask(prefix_length: int, size_bytes: int) -> bytes:
    """So many bits, from the first on, in the order of a packet's bytes."""
    bits = 8 * size_bytes
    return (((1 << prefix_length) - 1) << (bits - prefix_length)).to_bytes(size_bytes, "big")


def _flags(config: SlotConfig) -> int:
    return (
        config.observe * layout.Flag.OBSERVE
        | config.node_reserve * layout.Flag.NODE_RESERVE
        | (config.dscp is not None) * layout.Flag.MARK
        | (config.max_delay_q > 0) * layout.Flag.DELAY
        | (config.per_peer is not None) * layout.Flag.PER_PEER
        | bool(config.per_peer and config.per_peer.is_destination) * layout.Flag.PEER_IS_DESTINATION
    )


@functools.lru_cache(maxsize=4096)
def _owner(value: bytes) -> Owner:
    raw = layout.Owner.from_buffer_copy(value)
    name, uid = raw.name.decode(errors="replace"), raw.uid.decode(errors="replace")
    subject: Subject
    if raw.kind == layout.OwnerKind.DEVICE:
        subject = DeviceId(int(uid or 0), name)
    else:
        subject = PodId(raw.namespace_.decode(errors="replace"), name, uid)
    key = SlotKey(subject, _DIRECTIONS[raw.direction % len(_DIRECTIONS)])
    return Owner(key, raw.policy.decode(errors="replace"), raw.generation)


def _owner_struct(owner: Owner) -> layout.Owner:
    subject = owner.key.subject
    raw = layout.Owner(
        direction=_DIRECTIONS.index(owner.key.direction),
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
