"""The pinned programs of one build, as file descriptors for tc filters."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import HookProgram, Pins
from tokenbucket.core.planning.attachment import Hook


class Programs:
    """The programs of one build. Use an instance from one thread at a time."""

    def __init__(self, pins: Pins, build: str) -> None:
        """Open the pinned programs.

        Raises:
            KernelError: with ENOENT if that build is not loaded.
        """
        folder = pins.build(build)
        self.fds: Mapping[Hook, int] = {
            Hook.EGRESS: syscall.open_pin(folder / HookProgram.AT_EGRESS_HOOK),
            Hook.INGRESS: syscall.open_pin(folder / HookProgram.AT_INGRESS_HOOK),
        }
        self.ids = {hook: syscall.program_info(fd).id for hook, fd in self.fds.items()}

    def close(self) -> None:
        """Close the file descriptors. The pins stay."""
        for fd in self.fds.values():
            os.close(fd)
