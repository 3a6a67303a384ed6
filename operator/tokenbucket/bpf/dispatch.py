"""The program array through which stubs continue with the shared program.

The kernel empties a program array that has no pin and that no process has open. Stubs then let packets pass.
A running agent therefore keeps the array open, and restores its pin.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from pathlib import Path

from tokenbucket.bpf import syscall
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import IgnoreErrno

ENTRIES = {Hook.INGRESS: 0, Hook.EGRESS: 1}
"""Indexes of the program array."""
NAME = "tb_dispatch"


class Dispatch:
    """The program array of a layout version, which is open from its first use on. Belongs to one thread."""

    def __init__(self, maps: Path) -> None:
        """Use the array that is pinned in this folder."""
        self._path = maps / NAME
        self._descriptor: int | None = None
        self._id = 0

    @property
    def id(self) -> int:
        """Return the id of the array, 0 if there is none. Raises KernelError."""
        if self._descriptor is None:
            with IgnoreErrno(errno.ENOENT):
                self._keep(syscall.open_pin(self._path))
        elif not self._path.exists() and self._path.parent.is_dir():
            syscall.pin(self._descriptor, self._path)
        return self._id

    def open(self) -> int:
        """Return the descriptor of the array, which is made if there is none. Raises KernelError."""
        if self.id and self._descriptor is not None:
            return self._descriptor
        return self._make()

    def _make(self) -> int:
        array = syscall.create_program_array(len(ENTRIES), NAME)
        syscall.pin(array, self._path)
        self._keep(array)
        return array

    def program_id(self, hook: Hook) -> int:
        """Return the id of the program of a hook, 0 if there is none. Raises KernelError."""
        if not self.id or self._descriptor is None:
            return 0
        with IgnoreErrno(errno.ENOENT):
            (program_id,) = struct.unpack("=I", syscall.lookup(self._descriptor, ENTRIES[hook], 4, NAME))
            return int(program_id)
        return 0

    def point_to(self, programs: Mapping[Hook, int], *, replace: bool = True) -> bool:
        """Continue with these programs, given as descriptors.

        Without ``replace``, hooks keep the programs that they have. Return whether any changed.
        """
        array, changed = self.open(), False
        for hook, program in programs.items():
            there = self.program_id(hook)
            if not there or (replace and there != syscall.program_info(program).id):
                syscall.update(array, ENTRIES[hook], struct.pack("=I", program), NAME)
                changed = True
        return changed

    def _keep(self, descriptor: int) -> None:
        self._descriptor, self._id = descriptor, syscall.map_info(descriptor, NAME).id
