"""Programs that run at a hook before any tc filter: tcx, ``linux/bpf.h``, since Linux 6.6.

A tcx program that returns a final verdict ends the hook, and no filter of clsact runs. Attaching one sends no
netlink event.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from tokenbucket.bpf import syscall
from tokenbucket.core.planning.hook import Hook
from tokenbucket.errors import KernelError

_ATTACH_TYPES = {Hook.INGRESS: 46, Hook.EGRESS: 47}
"""``BPF_TCX_INGRESS`` and ``BPF_TCX_EGRESS`` of ``enum bpf_attach_type``."""
_GONE = {errno.ENODEV, errno.ENOENT}


@dataclass(frozen=True, slots=True)
class TcxProgram:
    """A program at a hook, and the id of the link that holds it there, 0 if none does."""

    program_id: int
    link_id: int
    name: str


class TcxReader:
    """Reads the tcx programs of interfaces in the calling thread's network namespace."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._supported = True

    def read(self, ifindex: int, hook: Hook) -> tuple[TcxProgram, ...]:
        """Return the programs of a hook in the order in which they run.

        Empty on a kernel without tcx and for an interface that is gone. Raises KernelError.
        """
        if not self._supported:
            return ()
        try:
            found = syscall.query_programs(ifindex, _ATTACH_TYPES[hook])
        except KernelError as error:
            if error.errno == errno.EINVAL:
                self._supported = False
            elif error.errno not in _GONE:
                raise
            return ()
        return tuple(TcxProgram(program, link, self.name_of(program)) for program, link in found)

    def name_of(self, program_id: int) -> str:
        """Return the name of a loaded program, at most 15 characters; empty if it has none or is gone."""
        if program_id not in self._names:
            self._names[program_id] = _read_name(program_id)
        return self._names[program_id]

    def forget_names(self) -> None:
        """Drop cached names: the kernel may give the id of an unloaded program to another."""
        self._names.clear()


def _read_name(program_id: int) -> str:
    try:
        descriptor = syscall.program_by_id(program_id)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return ""
    try:
        return syscall.program_info(descriptor, f"program {program_id}").name
    finally:
        os.close(descriptor)
