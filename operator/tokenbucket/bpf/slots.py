"""The slots in the kernel's maps, read and written as values of the core.

The order of writes makes every moment safe. A new slot gets its meters and counters first, then its
configuration, and its owner last. A freed slot loses its owner first. A slot without an owner is free.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenbucket import layout
from tokenbucket.bpf import codec, syscall
from tokenbucket.bpf.layout_upgrade import PreviousLayouts
from tokenbucket.bpf.pins import FLOWS, MAPS, Pins
from tokenbucket.bpf.pod_filters import PodFilters
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.debts import Debts
from tokenbucket.core.limits.slot import NO_SLOT, Slot, SlotConfig
from tokenbucket.core.limits.stats import Stats


@dataclass(frozen=True, slots=True)
class Meters:
    """The state of a slot's buckets: theoretical arrival times in quanta."""

    bytes_tat: int
    packets_tat: int
    reserve_tat: int


def monotonic_ns() -> int:
    """Return the time in ns of the clock that the program reads by ``bpf_ktime_get_ns``."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Slots:
    """The maps of one layout version. Use an instance as a context manager, from one thread at a time.

    Every method raises KernelError if the kernel rejects a request.
    """

    def __init__(self, pins: Pins) -> None:
        """Open the pinned maps.

        Raises:
            KernelError: with ENOENT if no maps are pinned.
            LoadError: a pinned map does not have the type or the sizes of this layout version.
        """
        self.count = pins.check_maps() or 0
        self._debts = Debts()
        self._fds = {name: syscall.open_pin(pins.maps / name) for name in MAPS}
        if (pins.maps / FLOWS).exists():
            self._fds[FLOWS] = syscall.open_pin(pins.maps / FLOWS)
        self._cpus = possible_cpus()
        self._owners, self._configs = (self._reader(name) for name in ("tb_owners", "tb_config"))
        self.pod_filters = PodFilters(pins)
        self.previous_layouts = PreviousLayouts(pins, lambda owner: codec.decode_owner(owner).key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the maps. The pins stay."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def read(self) -> dict[int, Slot]:
        """Return all slots in use, by index."""
        owners, configs = self._owners.read(), self._configs.read()
        stride, config_stride = MAPS["tb_owners"].value_size, MAPS["tb_config"].value_size
        in_use = [index for index, kind in enumerate(owners[::stride]) if kind]
        return {
            index: Slot(
                codec.decode_owner(bytes(owners[index * stride : (index + 1) * stride])),
                codec.decode_config(bytes(configs[index * config_stride : (index + 1) * config_stride])),
            )
            for index in in_use
        }

    def read_with_stats(self) -> list[tuple[Slot, Stats]]:
        """Return all slots in use with their counters.

        A slot that changes its owner during the call is left out, because its counters may belong to either.
        """
        before = self.read()
        stats = {index: self.stats(index) for index in before}
        after = self.read()
        return [
            (after[index], stats[index])
            for index, slot in before.items()
            if index in after and after[index].owner.key == slot.owner.key
        ]

    def write(self, index: int, slot: Slot, *, fresh: bool) -> None:
        """Write a slot.

        If ``fresh``, the slot gets zero counters, no peers and a full bucket, or the bucket that the limit
        has in another layout version. Otherwise counters, peers and bucket stay, and a debt shrinks if the
        rate increases.
        """
        if fresh:
            now_ns = monotonic_ns()
            inherited = self.previous_layouts.meters(slot.owner.key)
            meters = (
                codec.inherited_meters(inherited, now_ns) if inherited else codec.full_meters(now_ns, now_ns)
            )
            self._write("tb_meters", index, bytes(meters))
            self._write("tb_stats", index, bytes(MAPS["tb_stats"].value_size * self._cpus))
            self._forget_flows(index, now_ns)
        else:
            self._rescale_debts(index, slot.config)
        before = bytes(MAPS["tb_config"].value_size) if fresh else self._lookup("tb_config", index, 1)
        after = bytes(codec.encode_config(slot.config))
        for value in codec.config_steps(before, after):
            if value == after and codec.replaces_meters(before, after):
                syscall.wait_for_programs()  # one may have missed the new meter, and must find the old one
            self._write("tb_config", index, value)
        self._write("tb_owners", index, bytes(codec.encode_owner(slot.owner)))

    def free(self, index: int) -> None:
        """Free a slot. A filter that still refers to the slot lets all packets pass."""
        self._write("tb_owners", index, bytes(MAPS["tb_owners"].value_size))
        self._write("tb_config", index, bytes(MAPS["tb_config"].value_size))
        self.pod_filters.forget(index)

    def resolve_slot(self, slot: int, program_id: int) -> int:
        """Return the slot that a filter with this slot number and program refers to.

        Returns NO_SLOT for a program of another layout version, which uses maps of its own.
        """
        return NO_SLOT if program_id in self.previous_layouts.program_ids else slot

    def limits_device_in_another_layout(self, slot: int, program_id: int) -> bool:
        """Return whether a filter with this slot number limits a device in another layout version."""
        return (program_id, slot) in self.previous_layouts.of_devices

    def carry_over_charges(self, index: int) -> None:
        """Charge a slot with the packets that the same limit's bucket in another layout version let pass."""
        slot = Slot(codec.decode_owner(self._lookup("tb_owners", index, 1)), self._config(index))
        charged = self.previous_layouts.charge(slot, lambda: self._raw_meters(index), monotonic_ns())
        if charged:
            self._write("tb_meters", index, bytes(charged))

    def meters(self, index: int) -> Meters:
        """Return the state of a slot's buckets."""
        raw = self._raw_meters(index)
        return Meters(raw.bytes_tat, raw.packets_tat, raw.reserve_tat)

    def peers_epoch(self, index: int) -> int:
        """Return the epoch of a slot's peers. Entries of other epochs belong to earlier owners."""
        return int(self._raw_meters(index).peers_epoch)

    def stats(self, index: int) -> Stats:
        """Return the counters of a slot, summed over the CPUs."""
        return codec.decode_stats(self._lookup("tb_stats", index, self._cpus))

    def _forget_flows(self, index: int, now_ns: int) -> None:
        """Clear the state of the flows. An earlier owner's would delay some packets, as in a FIFO queue."""
        if FLOWS in self._fds:
            self._write(FLOWS, index, bytes(codec.full_flows(now_ns)))

    def _rescale_debts(self, index: int, after: SlotConfig) -> None:
        """Shorten the debts of meters whose rates increase."""
        changes = after.changes_of_rates(self._config(index))
        if not changes:
            return
        meters = self._raw_meters(index)
        words = {change.meter: getattr(meters, change.meter) for change in changes}
        rescaled = self._debts.rescale(index, words, changes, gcra.word_of(monotonic_ns()))
        if rescaled != words:
            for meter, word in rescaled.items():
                setattr(meters, meter, word)
            self._write("tb_meters", index, bytes(meters))

    def _config(self, index: int) -> SlotConfig:
        return codec.decode_config(self._lookup("tb_config", index, 1))

    def _raw_meters(self, index: int) -> layout.Meters:
        return layout.Meters.from_buffer_copy(self._lookup("tb_meters", index, 1))

    def _reader(self, name: str) -> syscall.ArrayReader:
        return syscall.ArrayReader(self._fds[name], self.count, MAPS[name].value_size, name)

    def _lookup(self, name: str, index: int, copies: int) -> bytes:
        return syscall.lookup(self._fds[name], index, MAPS[name].value_size * copies, name)

    def _write(self, name: str, index: int, value: bytes) -> None:
        syscall.update(self._fds[name], index, value, name)


def possible_cpus() -> int:
    """Return the number of CPUs for which a per-CPU map has values, numbered without gaps from 0."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1
