"""Buckets of other layout versions: an upgrade, or a step back, to another layout keeps every pod's tokens.

Each layout version has maps of its own. A slot that is new here takes over the state of the same limit's
bucket there, and is charged with what that bucket lets through until the last filter has moved over. That
works as long as meters and owners look the same in both; a version that changes them brings its own
translation.
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
"""Of the meters, and in the configuration the burst of each."""


class PreviousLayouts:
    """The buckets of all other layout versions, found once and read when asked for."""

    def __init__(self, pins: Pins, key_of: Callable[[bytes], SlotKey]) -> None:
        """``key_of`` reads an owner."""
        self._places: dict[SlotKey, tuple[Path, int]] = {}
        self._seen: dict[SlotKey, layout.Meters] = {}
        self.program_ids: set[int] = set()
        """The kernel's numbers of their programs."""
        self.of_devices: set[tuple[int, int]] = set()
        """Of the filters that limit devices: the program, and the slot there."""
        self._without_devices: list[Path] = []
        """Folders of the versions that limit none."""
        for folder in other_layouts(pins):
            self._find(folder, key_of)

    def meters(self, key: SlotKey) -> layout.Meters | None:
        """The state of a limit's bucket in another layout version; ``None`` where there is none.

        :meth:`charge` goes on from here.
        """
        if key not in self._places:
            return None
        maps, index = self._places[key]
        try:
            with opened(maps / "tb_meters") as fd:
                value = syscall.lookup(fd, index, _METERS_SIZE, "tb_meters")
        except KernelError:  # the other version is gone
            return None
        self._seen[key] = layout.Meters.from_buffer_copy(value)
        return self._seen[key]

    def charge(self, slot: Slot, meters: Callable[[], layout.Meters], now_ns: int) -> layout.Meters | None:
        """The state of a slot's bucket, charged with what the limit's bucket in another layout version has
        let through since it was last looked at; ``None`` where there is none.

        ``meters`` reads that state, as late as can be: packets that come meanwhile are not counted.
        ``now_ns`` is the time of the monotonic clock.
        """
        before, after = self._seen.get(slot.owner.key), self.meters(slot.owner.key)
        if after is None:
            return None
        now_q, charged = gcra.word_of(now_ns), meters()
        for word, burst in _WORDS.items():
            tat, burst_q = getattr(charged, word), getattr(slot.config, burst)
            # Without a first look, an agent before this one has written the slot.
            since = getattr(before, word) if before else tat
            setattr(charged, word, gcra.charged(tat, since, getattr(after, word), now_q, burst_q))
        return charged

    def unpin(self) -> None:
        """Unpins the other layout versions, when no pod's filter runs their programs any more. One that
        limits devices stays: those keep their limits as they were attached.
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
                content = syscall.lookup_all(owners, size.max_entries, _OWNER_SIZE, "tb_owners")
        except KernelError:  # incomplete
            return
        devices = set()
        for index in range(size.max_entries):
            owner = content[index * _OWNER_SIZE : (index + 1) * _OWNER_SIZE]
            if owner[0]:
                key = key_of(owner)
                self._places[key] = (maps, index)
                if isinstance(key.subject, DeviceId):
                    devices |= {(program, index) for program in programs}
        if devices:
            self.of_devices |= devices
            self._without_devices.remove(folder)


def other_layouts(pins: Pins) -> list[Path]:
    """Folders of the layout versions that are not this one's."""
    return [folder for folder in sorted(pins.root.glob("v*")) if folder != pins.folder]
