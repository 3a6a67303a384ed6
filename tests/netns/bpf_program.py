"""Programs of a few instructions, loaded without any library."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

UNSPEC, OK, SHOT = -1, 0, 2

_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_PROG_LOAD = 5
_SCHED_CLS = 3
_MOV64_IMM, _EXIT, _LOAD_WORD, _JUMP_NOT_EQUAL = 0xB7, 0x95, 0x61, 0x55
_TC_CLASSID_OFFSET = 72  # in struct __sk_buff


def verdict_program(verdict: int) -> int:
    """A program that returns this verdict. Returns its file descriptor."""
    return _load(_instruction(_MOV64_IMM, 0, immediate=verdict) + _instruction(_EXIT))


def slot_program(slot: int) -> int:
    """A program that drops what comes with this slot as its class, and gives no verdict on the rest."""
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


def _load(instructions: bytes) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQI",
        *(_SCHED_CLS, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
        *(0, 0, 0, 0),
    )
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(_NUMBER, _PROG_LOAD, ctypes.byref(buffer), len(attributes))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor
