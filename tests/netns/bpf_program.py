"""Programs of a few instructions, loaded and attached without a library."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

UNSPEC, OK, SHOT = -1, 0, 2

_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_PROG_LOAD, _OBJ_PIN = 5, 6
_LINK_CREATE = 28
_BEFORE = 1 << 3
_SCHED_CLS, _XDP = 3, 6
_TCX = {"ingress": 46, "egress": 47}
XDP_PASS, XDP_DROP = 2, 1
_MOV64_IMM, _EXIT, _LOAD_WORD, _JUMP_NOT_EQUAL = 0xB7, 0x95, 0x61, 0x55
_TC_CLASSID_OFFSET = 72  # in struct __sk_buff


def verdict_program(verdict: int, name: str = "", *, xdp: bool = False) -> int:
    """Load a program that returns this verdict. Return its file descriptor."""
    code = _instruction(_MOV64_IMM, 0, immediate=verdict) + _instruction(_EXIT)
    return _load(code, name, _XDP if xdp else _SCHED_CLS)


def attach_tcx(ifindex: int, hook: str, program: int, *, first: bool = False) -> int:
    """Attach a program by a link, at the tail or at the head of a hook.

    Return the descriptor of the link. Closing it detaches the program.
    """
    flags = _BEFORE if first else 0
    return _bpf(_LINK_CREATE, struct.pack("=IIIIIIQ", program, ifindex, _TCX[hook], flags, 0, 0, 0))


def pin(descriptor: int, path: str) -> None:
    """Pin a program on a bpffs, for commands."""
    text = ctypes.create_string_buffer(path.encode())
    _bpf(_OBJ_PIN, struct.pack("=QII", ctypes.addressof(text), descriptor, 0))


def slot_program(slot: int) -> int:
    """Load a program that drops packets with this slot as their class, and returns no verdict on others."""
    return _load(
        _instruction(_LOAD_WORD, 2, source=1, offset=_TC_CLASSID_OFFSET)
        + _instruction(_MOV64_IMM, 0, immediate=UNSPEC)
        + _instruction(_JUMP_NOT_EQUAL, 2, offset=1, immediate=slot)
        + _instruction(_MOV64_IMM, 0, immediate=SHOT)
        + _instruction(_EXIT)
    )


def _instruction(
    code: int, destination: int = 0, *, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, immediate)


def _load(instructions: bytes, name: str = "", kind: int = _SCHED_CLS) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    gpl = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        *(kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(gpl)),
        *(0, 0, 0, 0, 0, name.encode()),
    )
    return _bpf(_PROG_LOAD, attributes)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(_NUMBER, command, ctypes.byref(buffer), len(attributes))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor
