"""tcx: programs that run at a hook before any tc filter, since Linux 6.6.

A program that returns a final verdict ends the hook: no later program and no filter runs. Attaching one sends
no netlink event. tokenbucket attaches by links, which are pinned so that they outlive the agent::

    /sys/fs/bpf/tokenbucket/links/4026531840_7_ingress      namespace, index of the interface, hook

All functions act on the calling thread's network namespace and raise KernelError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.bpf import syscall, tcx_links
from tokenbucket.bpf.pins import Pins, opened
from tokenbucket.bpf.stubs import COPIES, Stubs
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.errors import IgnoreErrno, KernelError

_ATTACH_TYPES = {Hook.INGRESS: 46, Hook.EGRESS: 47}
"""``BPF_TCX_INGRESS`` and ``BPF_TCX_EGRESS`` of ``enum bpf_attach_type``."""
_LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class TcxProgram:
    """A program at a hook, and the id of the link that holds it there, 0 if none does."""

    program_id: int
    link_id: int


def _is_supported() -> bool:
    """Return whether the kernel has tcx."""
    with IgnoreErrno(errno.EINVAL):
        tcx_links.query_programs(_LOOPBACK, _ATTACH_TYPES[Hook.INGRESS])
        return True
    return False


def _read(ifindex: int, hook: Hook) -> tuple[TcxProgram, ...]:
    """Return the programs of a hook in the order in which they run; none if the interface is gone."""
    with IgnoreErrno(errno.ENODEV, errno.ENOENT):
        found = tcx_links.query_programs(ifindex, _ATTACH_TYPES[hook])
        return tuple(TcxProgram(program, link) for program, link in found)
    return ()


class Tcx:
    """tokenbucket's tcx programs, and those of others. Belongs to one thread."""

    def __init__(self, pins: Pins) -> None:
        self.is_supported = _is_supported()
        self.stubs = Stubs(pins)
        self.names = ProgramNames()
        self._pins = pins

    def read(self, ifindex: int, hook: Hook) -> tuple[TcxProgram, ...]:
        """Return the programs of a hook in the order in which they run; none if the interface is gone."""
        return _read(ifindex, hook) if self.is_supported else ()

    def attach(self, inode: int, ifindex: int, hook: Hook, slot: int, *, redirects: bool = False) -> None:
        """Attach a slot at the head of a hook, or give the slot to the link that is first there.

        With ``redirects``, packets of an ingress hook go to the ifb device.
        """
        path = self._path(inode, ifindex, hook)
        there = [program.program_id for program in _read(ifindex, hook)]
        stub = self._open_stub(slot, hook, there, redirects=redirects)
        try:
            if not _update_first(path, ifindex, hook, stub):
                _attach_first(path, ifindex, hook, stub)
        finally:
            os.close(stub)

    def _open_stub(self, slot: int, hook: Hook, there: list[int], *, redirects: bool) -> int:
        """Return a stub of the slot that is not at the hook yet."""
        for copy in COPIES:
            stub = self.stubs.open(slot, hook, copy, redirects=redirects)
            if syscall.program_info(stub).id not in there:
                return stub
            os.close(stub)
        raise KernelError("attach", f"slot {slot} {hook}", errno.EEXIST)

    def detach(self, inode: int, ifindex: int, hook: Hook) -> None:
        """Detach tokenbucket's program from a hook, if it is there."""
        _detach(self._path(inode, ifindex, hook))

    def detach_slot(self, slot: int) -> None:
        """Detach a slot's programs from all interfaces, and unpin its stubs.

        A program follows its interface to another namespace, where the path of the link does not find it.
        """
        stubs = self.stubs.program_ids(slot)
        for path in self._pinned() if stubs else ():
            with IgnoreErrno(errno.ENOENT):
                if _read_link(path).program_id in stubs:
                    _detach(path)
        self.stubs.remove(slot)

    def detach_all(self) -> int:
        """Detach all programs in all namespaces, and return their number."""
        return sum(_detach(path) for path in self._pinned())

    def namespaces(self) -> set[int]:
        """Return the inodes of the namespaces that tokenbucket attached programs in."""
        return {int(path.name.split("_")[0]) for path in self._pins.links.glob("*")}

    def interfaces_in(self, inode: int) -> set[int]:
        """Return the indexes of the interfaces of a namespace that tokenbucket attached programs to."""
        return {int(path.name.split("_")[1]) for path in self._pins.links.glob(f"{inode}_*")}

    def remove_stale(self) -> None:
        """Unpin the links of interfaces that are gone."""
        for path in self._pinned():
            with suppress(FileNotFoundError):
                if _is_stale(path):
                    path.unlink()

    def _pinned(self) -> Iterator[Path]:
        return self._pins.links.glob("*")

    def _path(self, inode: int, ifindex: int, hook: Hook) -> Path:
        return self._pins.links / f"{inode}_{ifindex}_{hook}"


def _update_first(path: Path, ifindex: int, hook: Hook, stub: int) -> bool:
    """Replace the program of a pinned link, if the link is the first of the hook."""
    first = next(iter(_read(ifindex, hook)), None)
    with IgnoreErrno(errno.ENOENT), opened(path) as link:
        if first and tcx_links.link_info(link).id == first.link_id:
            tcx_links.update_link(link, stub, str(path))
            return True
    return False


def _attach_first(path: Path, ifindex: int, hook: Hook, stub: int) -> None:
    """Attach at the head before the link that has the same pin, if any, is detached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}_new")
    unfinished.unlink(missing_ok=True)  # left over from a killed process
    link = tcx_links.attach_first(stub, ifindex, _ATTACH_TYPES[hook], f"interface {ifindex} {hook}")
    try:
        syscall.pin(link, unfinished)
        _detach(path)
        unfinished.rename(path)
    finally:
        os.close(link)


def _detach(path: Path) -> bool:
    """Detach and unpin a link. Return whether it held a program."""
    with IgnoreErrno(errno.ENOENT):
        with opened(path) as link:
            held = tcx_links.link_info(link, str(path)).ifindex != 0
            tcx_links.detach_link(link, str(path))
        path.unlink(missing_ok=True)
        return held
    return False


def _is_stale(path: Path) -> bool:
    with IgnoreErrno(errno.ENOENT):
        return _read_link(path).ifindex == 0
    return False


def _read_link(path: Path) -> tcx_links.LinkInfo:
    with opened(path) as link:
        return tcx_links.link_info(link, str(path))


class ProgramNames:
    """Names of loaded programs, by id."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def of(self, program_id: int) -> str:
        """Return a name of at most 15 characters.

        Empty if the program has none, is unloaded, or may not be read: that needs SYS_ADMIN.
        """
        if program_id not in self._names:
            self._names[program_id] = _read_name(program_id)
        return self._names[program_id]

    def forget(self) -> None:
        """Drop all names: the kernel may give the id of an unloaded program to another."""
        self._names.clear()


def _read_name(program_id: int) -> str:
    with IgnoreErrno(errno.ENOENT, errno.EPERM):
        descriptor = syscall.program_by_id(program_id)
        try:
            return syscall.program_info(descriptor, f"program {program_id}").name
        finally:
            os.close(descriptor)
    return ""
