"""The structs that user space shares with the BPF program.

Generated from ``operator/bpf/layout.h`` by ``make generate``; do not edit.
"""

from __future__ import annotations

import ctypes
import enum

LAYOUT_VERSION = 2
IFB = 29794


class Flag(enum.IntFlag):
    """``enum tb_flag``."""

    OBSERVE = 1
    NODE_RESERVE = 2
    MARK = 4
    DELAY = 8
    PER_PEER = 16
    PEER_IS_DESTINATION = 32
    PACING = 64
    OBSERVE_BY_MODE = 128


class OwnerKind(enum.IntEnum):
    """``enum tb_owner_kind``."""

    NONE = 0
    POD = 1
    DEVICE = 2


class Direction(enum.IntEnum):
    """``enum tb_direction``."""

    INGRESS = 0
    EGRESS = 1


class Role(enum.IntEnum):
    """``enum tb_role``."""

    LIMIT = 0
    GUARD = 1


class Config(ctypes.Structure):
    """``struct tb_config``, 192 bytes."""

    _fields_ = [
        ("bytes_scale", ctypes.c_uint64),
        ("bytes_burst_q", ctypes.c_uint64),
        ("packets_scale", ctypes.c_uint64),
        ("packets_burst_q", ctypes.c_uint64),
        ("reserve_scale", ctypes.c_uint64),
        ("reserve_burst_q", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("dscp", ctypes.c_uint64),
        ("max_delay_q", ctypes.c_uint64),
        ("bits_per_s", ctypes.c_uint64),
        ("packets_per_s", ctypes.c_uint64),
        ("reserve_bits_per_s", ctypes.c_uint64),
        ("peer_bits_per_s", ctypes.c_uint64),
        ("peer_packets_per_s", ctypes.c_uint64),
        ("longest_backlog_q", ctypes.c_uint64),
        ("unused", ctypes.c_uint64),
        ("peer_bytes_scale", ctypes.c_uint64),
        ("peer_bytes_burst_q", ctypes.c_uint64),
        ("peer_packets_scale", ctypes.c_uint64),
        ("peer_packets_burst_q", ctypes.c_uint64),
        ("peer_ipv4_mask", ctypes.c_uint64),
        ("peer_ipv6_mask", ctypes.c_uint64 * 2),
        ("peer_ipv4_prefix_length", ctypes.c_uint16),
        ("peer_ipv6_prefix_length", ctypes.c_uint16),
        ("unused_peer", ctypes.c_uint32),
    ]


class Peer(ctypes.Structure):
    """``struct tb_peer``, 16 bytes."""

    _fields_ = [
        ("bytes_tat", ctypes.c_uint64),
        ("packets_tat", ctypes.c_uint64),
    ]


class PeerKey(ctypes.Structure):
    """``struct tb_peer_key``, 32 bytes."""

    _fields_ = [
        ("epoch", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("ethertype", ctypes.c_uint16),
        ("prefix_length", ctypes.c_uint16),
        ("prefix", ctypes.c_uint64 * 2),
    ]


class Meters(ctypes.Structure):
    """``struct tb_meters``, 64 bytes."""

    _fields_ = [
        ("bytes_tat", ctypes.c_uint64),
        ("packets_tat", ctypes.c_uint64),
        ("reserve_tat", ctypes.c_uint64),
        ("shared_peer", Peer),
        ("peers_epoch", ctypes.c_uint64),
        ("fair_top", ctypes.c_uint64),
        ("fair_others", ctypes.c_uint64),
    ]


class Flow(ctypes.Structure):
    """``struct tb_flow``, 16 bytes."""

    _fields_ = [
        ("tag", ctypes.c_uint64),
        ("departs", ctypes.c_uint64),
    ]


class Flows(ctypes.Structure):
    """``struct tb_flows``, 8208 bytes."""

    _fields_ = [
        ("cells", Flow * 512),
        ("small_bytes_tat", ctypes.c_uint64),
        ("small_packets_tat", ctypes.c_uint64),
    ]


class Stats(ctypes.Structure):
    """``struct tb_stats``, 192 bytes."""

    _fields_ = [
        ("in_window_packets", ctypes.c_uint64),
        ("idle_packets", ctypes.c_uint64),
        ("conform_bytes", ctypes.c_uint64),
        ("shared_peer_packets", ctypes.c_uint64),
        ("forwarded_packets", ctypes.c_uint64),
        ("forwarded_bytes", ctypes.c_uint64),
        ("dropped_packets", ctypes.c_uint64),
        ("dropped_bytes", ctypes.c_uint64),
        ("too_fast_packets", ctypes.c_uint64),
        ("too_fast_bytes", ctypes.c_uint64),
        ("reserve_packets", ctypes.c_uint64),
        ("reserve_bytes", ctypes.c_uint64),
        ("contended_packets", ctypes.c_uint64),
        ("unmetered_packets", ctypes.c_uint64),
        ("unmetered_bytes", ctypes.c_uint64),
        ("marked_packets", ctypes.c_uint64),
        ("delayed_packets", ctypes.c_uint64),
        ("delayed_bytes", ctypes.c_uint64),
        ("delayed_ns", ctypes.c_uint64),
        ("ce_packets", ctypes.c_uint64),
        ("peer_too_fast_packets", ctypes.c_uint64),
        ("unused_delayed", ctypes.c_uint64 * 3),
    ]


class Owner(ctypes.Structure):
    """``struct tb_owner``, 640 bytes."""

    _fields_ = [
        ("kind", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
        ("role", ctypes.c_uint8),
        ("unused", ctypes.c_uint8 * 5),
        ("generation", ctypes.c_uint64),
        ("uid", ctypes.c_char * 48),
        ("namespace_", ctypes.c_char * 64),
        ("name", ctypes.c_char * 256),
        ("policy", ctypes.c_char * 256),
    ]
