"""The structs that user space shares with the BPF program: a mirror of ``operator/bpf/layout.h``.

The C header is the source; a test compiles it and compares sizes, offsets and constants with these.
"""

from __future__ import annotations

import ctypes
import enum

LAYOUT_VERSION = 1
NO_SLOT = 0
"""The slot of nobody: its counters count packets whose filter names no slot in use."""


class Flag(enum.IntFlag):
    """Bits of ``Config.flags``."""

    OBSERVE = 1
    NODE_RESERVE = 2
    MARK = 4
    DELAY = 8


class OwnerKind(enum.IntEnum):
    """Values of ``Owner.kind``."""

    NONE = 0
    POD = 1
    DEVICE = 2


def _words(*names: str) -> list[tuple[str, type[ctypes.c_uint64]]]:
    return [(name, ctypes.c_uint64) for name in names]


class Config(ctypes.Structure):
    """``struct tb_config``: for the program, times in quanta; for people, rates per second."""

    _fields_ = [
        *_words(
            "bytes_scale",
            "bytes_burst_q",
            "packets_scale",
            "packets_burst_q",
            "reserve_scale",
            "reserve_burst_q",
            "flags",
            "dscp",
            "max_delay_q",
            "bits_per_s",
            "packets_per_s",
            "reserve_bits_per_s",
        ),
        ("unused", ctypes.c_uint64 * 4),
    ]


class Meters(ctypes.Structure):
    """``struct tb_meters``: theoretical arrival times in quanta."""

    _fields_ = [*_words("bytes_tat", "packets_tat", "reserve_tat"), ("unused", ctypes.c_uint64 * 5)]


class Stats(ctypes.Structure):
    """``struct tb_stats``: counters of one CPU."""

    _fields_ = [
        *_words("in_window_packets", "idle_packets", "conform_bytes"),
        ("unused_conform", ctypes.c_uint64 * 5),
        *_words(
            "too_fast_packets",
            "too_fast_bytes",
            "reserve_packets",
            "reserve_bytes",
            "contended_packets",
            "unmetered_packets",
            "unmetered_bytes",
            "marked_packets",
            "delayed_packets",
            "delayed_bytes",
            "delayed_ns",
            "ce_packets",
        ),
        ("unused_delayed", ctypes.c_uint64 * 4),
    ]


class Owner(ctypes.Structure):
    """``struct tb_owner``: whose slot it is."""

    _fields_ = [
        ("kind", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
        ("unused", ctypes.c_uint8 * 6),
        ("generation", ctypes.c_uint64),
        ("uid", ctypes.c_char * 48),
        ("namespace_", ctypes.c_char * 64),
        ("name", ctypes.c_char * 256),
        ("policy", ctypes.c_char * 256),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "tb_config": Config,
    "tb_meters": Meters,
    "tb_stats": Stats,
    "tb_owner": Owner,
}
