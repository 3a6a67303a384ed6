"""Run a loaded program by BPF_PROG_TEST_RUN, on a packet that never reaches an interface."""

from __future__ import annotations

import ctypes
import enum
import struct
from dataclasses import dataclass

from tokenbucket.bpf import syscall


class Command(enum.IntEnum):
    """``enum bpf_cmd`` of ``linux/bpf.h``."""

    PROG_TEST_RUN = 10


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """Result of one :func:`run_program`."""

    verdict: int
    """The program's return value, signed."""
    mean_ns: int
    """Nanoseconds per run, over all repeats."""
    packet: bytes
    """The packet after the program has run."""
    context: bytes = b""
    """The context after the program has run."""


def run_program(fd: int, packet: bytes, context: bytes = b"", repeat: int = 1) -> ProgramRun:
    """Run a program on a packet. ``context`` is a ``struct __sk_buff``, or its beginning."""
    data = ctypes.create_string_buffer(packet, len(packet))
    left = ctypes.create_string_buffer(len(packet))
    skb = ctypes.create_string_buffer(context, len(context) or 1)
    skb_left = ctypes.create_string_buffer(len(context) or 1)
    attributes = struct.pack(
        "=IIIIQQIIIIQQ",
        *(fd, 0, len(packet), len(packet)),
        *(ctypes.addressof(data), ctypes.addressof(left), repeat, 0),
        *(len(context), len(context)),
        *(ctypes.addressof(skb) if context else 0, ctypes.addressof(skb_left) if context else 0),
    )
    _, buffer = syscall.bpf(Command.PROG_TEST_RUN, attributes, "program")
    verdict, mean_ns = struct.unpack_from("=4xi28xI", buffer.raw)
    return ProgramRun(verdict, mean_ns, left.raw, skb_left.raw[: len(context)])
