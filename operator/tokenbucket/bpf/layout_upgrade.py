"""Upgrades and downgrades between layout versions, which keep the tokens of every bucket.

Each layout version has its own maps. A new slot inherits the state of the same limit's bucket in the other
version. Until the last filter is replaced, the slot is also charged with the packets that the other bucket
lets pass. Both versions must have the same ``struct tb_meters`` and ``struct tb_owner``.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path

from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import Pins, opened, program_ids
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import DeviceId, Slot, SlotKey
from tokenbucket.errors import KernelError

_OWNER_SIZE = ctypes.sizeof(layout.Owner)
_METERS_SIZE = ctypes.sizeof(layout.Meters)
_WORDS = {
    "bytes_tat": "bytes_burst_q",
    "packets_tat": "packets_burst_q",
    "reserve_tat": "reserve_burst_q",
}
"""Words of ``struct tb_meters``, and their bursts in ``SlotConfig``."""


class PreviousLayouts:
    """The buckets of all other layout versions, searched at construction and read on demand."""

    def __init__(self, pins: Pins, key_of: Callable[[bytes], SlotKey]) -> None:
        """``key_of`` decodes a ``struct tb_owner``."""
        self._places: dict[SlotKey, tuple[Path, int]] = {}
        self._seen: dict[SlotKey, layout.Meters] = {}
        self.program_ids: set[int] = set()
        """Ids of the programs of the other layout versions."""
        self.of_devices: set[tuple[int, int]] = set()
        """Program ids and slots of the filters that limit devices."""
        self._without_devices: list[Path] = []
        """Folders of the versions that limit no devices."""
        for folder in other_layouts(pins):
            self._find(folder, key_of)

    def meters(self, key: SlotKey) -> layout.Meters | None:
        """Return the state of a limit's bucket in another layout version, or ``None``.

        The next :meth:`charge` compares with this state.
        """
        if key not in self._places:
            return None
        maps, index = self._places[key]
        try:
            with opened(maps / "tb_meters") as fd:
                value = syscall.lookup(fd, index, _METERS_SIZE, "tb_meters")
        except KernelError:  # the other version was unpinned
            return None
        self._seen[key] = layout.Meters.from_buffer_copy(value)
        return self._seen[key]

    def charge(self, slot: Slot, meters: Callable[[], layout.Meters], now_ns: int) -> layout.Meters | None:
        """Return the state of a slot's bucket, charged with the packets of another layout version.

        These are the packets that the bucket of that limit admitted since the last read. Return
        ``None`` if no other version has the limit.

        ``meters`` reads the state of the slot. It is called as late as possible, because packets that pass
        between the read and the write are not counted. ``now_ns`` is a time of the monotonic clock.
        """
        before, after = self._seen.get(slot.owner.key), self.meters(slot.owner.key)
        if after is None:
            return None
        now_q, charged = gcra.word_of(now_ns), meters()
        for word, burst in _WORDS.items():
            tat, burst_q = getattr(charged, word), getattr(slot.config, burst)
            # If the state was not read before, an earlier agent has written the slot.
            since = getattr(before, word) if before else tat
            setattr(charged, word, gcra.charged(tat, since, getattr(after, word), now_q, burst_q))
        return charged

    def unpin(self) -> None:
        """Unpin the other layout versions that limit no devices.

        Call this method when no pod's filter runs their programs. Devices keep their limits.
        """
        for folder in self._without_devices:
            shutil.rmtree(folder, ignore_errors=True)

    def _find(self, folder: Path, key_of: Callable[[bytes], SlotKey]) -> None:
        maps = folder / "maps"
        self._without_devices.append(folder)
        try:
            programs = program_ids(folder)
            self.program_ids |= programs
            with opened(maps / "tb_owners") as owners, opened(maps / "tb_meters") as meters:
                size = syscall.map_info(owners, "tb_owners")
                if (size.value_size, syscall.map_info(meters, "tb_meters").value_size) != (
                    _OWNER_SIZE,
                    _METERS_SIZE,
                ):
                    return
                reader = syscall.ArrayReader(owners, size.max_entries, _OWNER_SIZE, "tb_owners")
                content = reader.read()
        except KernelError:  # incomplete
            return
        devices = set()
        for index in range(size.max_entries):
            owner = bytes(content[index * _OWNER_SIZE : (index + 1) * _OWNER_SIZE])
            if owner[0]:
                key = key_of(owner)
                self._places[key] = (maps, index)
                if isinstance(key.subject, DeviceId):
                    devices |= {(program, index) for program in programs}
        if devices:
            self.of_devices |= devices
            self._without_devices.remove(folder)


def other_layouts(pins: Pins) -> list[Path]:
    """Return the folders of the other layout versions."""
    return [folder for folder in sorted(pins.root.glob("v*")) if folder != pins.folder]
