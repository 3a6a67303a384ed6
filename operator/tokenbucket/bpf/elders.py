"""Buckets of other layout versions: an upgrade, or a step back, to another layout keeps every pod's tokens.

Each layout version has maps of its own. While the filters still run the program of the other version, a slot
that is new here takes over the state of the same limit's bucket there. That works as long as meters and
owners look the same in both; a version that changes them brings its own translation.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path

from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import Pins, opened
from tokenbucket.core.slot import SlotKey
from tokenbucket.errors import KernelError

_OWNER_SIZE = ctypes.sizeof(layout.Owner)
_METERS_SIZE = ctypes.sizeof(layout.Meters)


class Elders:
    """The buckets of all other layout versions, found once and read when asked for."""

    def __init__(self, pins: Pins, key_of: Callable[[bytes], SlotKey]) -> None:
        """``key_of`` reads an owner."""
        self._places: dict[SlotKey, tuple[Path, int]] = {}
        for folder in other_layouts(pins):
            self._find(folder / "maps", key_of)

    def meters(self, key: SlotKey) -> bytes | None:
        """The state of a limit's bucket in another layout version; ``None`` where there is none."""
        if key not in self._places:
            return None
        maps, index = self._places[key]
        try:
            with opened(maps / "tb_meters") as fd:
                return syscall.lookup(fd, index, _METERS_SIZE, "tb_meters")
        except KernelError:  # the other version is gone
            return None

    def _find(self, maps: Path, key_of: Callable[[bytes], SlotKey]) -> None:
        try:
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
        for index in range(size.max_entries):
            owner = content[index * _OWNER_SIZE : (index + 1) * _OWNER_SIZE]
            if owner[0]:
                self._places[key_of(owner)] = (maps, index)


def other_layouts(pins: Pins) -> list[Path]:
    """Folders of the layout versions that are not this one's."""
    return [folder for folder in sorted(pins.root.glob("v*")) if folder != pins.folder]


def remove_other_layouts(pins: Pins) -> None:
    """Unpins them, when no filter runs their programs any more."""
    for folder in other_layouts(pins):
        shutil.rmtree(folder)
