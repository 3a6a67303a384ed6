"""Stubs: tcx programs that name the slot of an attachment and continue with the shared program.

A tc filter passes its slot as class id. tcx has no such parameter, so each slot has a stub for each hook::

    skb->tc_classid = 0x10000 + slot
    bpf_tail_call(skb, tb_dispatch, hook)       a program array, which names the programs of the current build
    return TC_ACT_UNSPEC                        if the array is empty: the packet passes

If packets of an ingress hook wait at the ifb device, their stub begins with::

    if (bpf_check_mtu(skb, ifb, ...) >= 0)      the device exists, so that no packet is lost without it
        return bpf_redirect(ifb, 0)

An upgrade of the program writes the array once, for all stubs. Pins of a layout version::

    /sys/fs/bpf/tokenbucket/v2/maps/tb_dispatch
    /sys/fs/bpf/tokenbucket/v2/stubs/ingress_7_0  egress_7_0  redirect_7_0

A hook accepts a program once: a slot that moves to the head of its hook uses a second copy, ``ingress_7_1``.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tokenbucket.bpf import syscall
from tokenbucket.bpf.dispatch import ENTRIES, Dispatch
from tokenbucket.bpf.pins import Pins, opened
from tokenbucket.core.planning.attachment import IFB, Hook
from tokenbucket.errors import IgnoreErrno, KernelError

COPIES = (0, 1)
CLASS_BASE = 0x10000
"""Added to the slot, as in the class id of a tc filter."""

_REDIRECT = "redirect"
_TC_CLASSID = 72
"""Offset in ``struct __sk_buff``."""
_MAP_FD, _TAIL_CALL, _UNSPEC = 1, 12, -1
_LOAD_64, _MOVE, _STORE_WORD, _CALL, _EXIT = 0x18, 0xB7, 0x63, 0x85, 0x95
_STORE_ZERO, _COPY, _ADD, _JUMP_IF_LESS = 0x62, 0xBF, 0x07, 0xC5
_CHECK_MTU, _REDIRECT_TO = 163, 23
_FRAME = 10
"""The register that points to the end of the stack."""


@dataclass(frozen=True, slots=True)
class Stub:
    """The slot that a stub names, and the program that it continues with, 0 if there is none."""

    slot: int
    program_id: int
    redirects: bool


class Stubs:
    """The stubs of all layout versions; new ones are those of this version. Belongs to one thread."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self.dispatch = Dispatch(pins.maps)
        self._dispatches = {pins.folder: self.dispatch}
        """Program arrays by folder of the layout version."""
        self._known: dict[int, tuple[Path, str, int, int]] = {}
        """The folder of the layout version, the kind, the slot and the id of the array, by program id."""
        self._read: set[tuple[Path, int]] = set()
        """Pins that were read, by path and inode: a slot may get a new stub."""
        self._foreign: set[int] = set()

    def find(self, program_id: int) -> Stub | None:
        """Return the stub with this id, or ``None`` if the program is not one. Raises KernelError."""
        if program_id not in self._known and program_id not in self._foreign:
            self._read_new_pins()
            if program_id not in self._known:
                self._foreign.add(program_id)
        if program_id not in self._known:
            return None
        folder, kind, slot, array = self._known[program_id]
        redirects = kind == _REDIRECT
        dispatch = self._dispatches.setdefault(folder, Dispatch(folder / "maps"))
        runs = dispatch.program_id(Hook.INGRESS if redirects else Hook(kind)) if dispatch.id == array else 0
        return Stub(slot, runs, redirects)

    def open(self, slot: int, hook: Hook, copy: int = 0, *, redirects: bool = False) -> int:
        """Return a descriptor of a slot's stub, which is loaded and pinned if there is none.

        A stub of another program array is replaced: the kernel has emptied that array.
        """
        path = self._path(slot, _REDIRECT if redirects else hook, copy)
        array = self.dispatch.open()
        with IgnoreErrno(errno.ENOENT):
            stub = syscall.open_pin(path)
            if syscall.first_map_id(stub) == self.dispatch.id:
                return stub
            os.close(stub)
            path.unlink()
        code = (_REDIRECT_CODE if redirects else b"") + stub_code(slot, hook, array)
        stub = syscall.load_program(code, f"tb_{'ifb' if redirects else hook}_{slot}")
        path.parent.mkdir(parents=True, exist_ok=True)
        syscall.pin(stub, path)
        self._add(stub, path)
        return stub

    def program_ids(self, slot: int) -> set[int]:
        """Return the ids of a slot's stubs."""
        found = set()
        for path in self._paths(slot):
            with IgnoreErrno(errno.ENOENT), opened(path) as stub:
                found.add(syscall.program_info(stub).id)
        return found

    def remove(self, slot: int) -> None:
        """Unpin a slot's stubs, which no link may run any more."""
        for path in self._paths(slot):
            path.unlink(missing_ok=True)

    def _paths(self, slot: int) -> list[Path]:
        return [self._path(slot, kind, copy) for kind, copy in product((*Hook, _REDIRECT), COPIES)]

    def _path(self, slot: int, kind: str, copy: int) -> Path:
        return self._pins.folder / "stubs" / f"{kind}_{slot}_{copy}"

    def _read_new_pins(self) -> None:
        pinned = {(path, path.stat().st_ino) for path in self._pins.root.glob("v*/stubs/*")}
        for path, _ in pinned - self._read:
            with suppress(KernelError), opened(path) as stub:  # it may be unpinned at any time
                self._add(stub, path)
        self._read = pinned

    def _add(self, stub: int, path: Path) -> None:
        kind, slot, _ = path.name.split("_")
        array = syscall.first_map_id(stub)
        self._known[syscall.program_info(stub).id] = (path.parents[1], kind, int(slot), array)


def stub_code(slot: int, hook: Hook, dispatch: int) -> bytes:
    """Return the instructions of a stub. ``dispatch`` is a descriptor of the program array."""
    return b"".join(
        (
            _instruction(_MOVE, 2, immediate=CLASS_BASE + slot),
            _instruction(_STORE_WORD, 1, source=2, offset=_TC_CLASSID),
            _instruction(_LOAD_64, 2, source=_MAP_FD, immediate=dispatch),
            _instruction(0),  # the upper half of the descriptor
            _instruction(_MOVE, 3, immediate=ENTRIES[hook]),
            _instruction(_CALL, immediate=_TAIL_CALL),
            _instruction(_MOVE, 0, immediate=_UNSPEC),
            _instruction(_EXIT),
        )
    )


def _instruction(
    code: int, destination: int = 0, *, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """Return one ``struct bpf_insn``."""
    return struct.pack("=BBhi", code, destination | source << 4, offset, immediate)


_REDIRECT_CODE = b"".join(
    (
        _instruction(_COPY, 6, source=1),
        _instruction(_STORE_ZERO, _FRAME, offset=-8),  # with a length of 0, the helper takes the packet's
        _instruction(_MOVE, 2, immediate=IFB),
        _instruction(_COPY, 3, source=_FRAME),
        _instruction(_ADD, 3, immediate=-8),
        _instruction(_MOVE, 4),
        _instruction(_MOVE, 5),
        _instruction(_CALL, immediate=_CHECK_MTU),
        _instruction(_JUMP_IF_LESS, 0, offset=4),
        _instruction(_MOVE, 1, immediate=IFB),
        _instruction(_MOVE, 2),
        _instruction(_CALL, immediate=_REDIRECT_TO),
        _instruction(_EXIT),
        _instruction(_COPY, 1, source=6),
    )
)
"""Redirects a packet to the ifb device if it exists, and continues below if it does not."""
