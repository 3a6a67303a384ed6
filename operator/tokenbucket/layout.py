"""The structs that user space shares with the BPF program: a mirror of ``operator/bpf/layout.h``.

The C header is the source; a test compiles it and compares sizes, offsets and constants with these.
"""

from __future__ import annotations

import ctypes
import enum

LAYOUT_VERSION = 2


class Flag(enum.IntFlag):
    """Bits of ``Config.flags``."""

    OBSERVE = 1
    NODE_RESERVE = 2
    MARK = 4
    DELAY = 8
    PER_PEER = 16
    PEER_IS_DESTINATION = 32


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
            "peer_bits_per_s",
            "peer_packets_per_s",
        ),
        ("unused", ctypes.c_uint64 * 2),
        *_words(
            "peer_bytes_scale",
            "peer_bytes_burst_q",
            "peer_packets_scale",
            "peer_packets_burst_q",
        ),
        ("peer_ipv4_mask", ctypes.c_uint8 * 8),
        ("peer_ipv6_mask", ctypes.c_uint8 * 16),
        ("peer_ipv4_prefix_length", ctypes.c_uint16),
        ("peer_ipv6_prefix_length", ctypes.c_uint16),
        ("unused_peer", ctypes.c_uint32),
    ]


class Peer(ctypes.Structure):
    """``struct tb_peer``: the meters of a peer."""

    _fields_ = _words("bytes_tat", "packets_tat")


class PeerKey(ctypes.Structure):
    """``struct tb_peer_key``: whose meters they are."""

    _fields_ = [
        ("epoch", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("ethertype", ctypes.c_uint16),
        ("prefix_length", ctypes.c_uint16),
        ("prefix", ctypes.c_uint8 * 16),
    ]


class Meters(ctypes.Structure):
    """``struct tb_meters``: theoretical arrival times in quanta."""

    _fields_ = [
        *_words("bytes_tat", "packets_tat", "reserve_tat"),
        ("shared_peer", Peer),
        *_words("peers_epoch"),
        ("unused", ctypes.c_uint64 * 2),
    ]


class Stats(ctypes.Structure):
    """``struct tb_stats``: counters of one CPU."""

    _fields_ = [
        *_words(
            "in_window_packets",
            "idle_packets",
            "conform_bytes",
            "shared_peer_packets",
            "forwarded_packets",
            "forwarded_bytes",
            "dropped_packets",
            "dropped_bytes",
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
            "peer_too_fast_packets",
        ),
        ("unused_delayed", ctypes.c_uint64 * 3),
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
    "tb_peer": Peer,
    "tb_peer_key": PeerKey,
}
