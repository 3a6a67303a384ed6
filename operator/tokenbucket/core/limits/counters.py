"""The counters of ``struct tb_stats``.

Generated from ``operator/bpf/layout.h`` by ``make generate``; do not edit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """The fields of ``struct tb_stats``."""

    in_window_packets: int = 0
    idle_packets: int = 0
    conform_bytes: int = 0
    shared_peer_packets: int = 0
    forwarded_packets: int = 0
    forwarded_bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0
    too_fast_packets: int = 0
    too_fast_bytes: int = 0
    reserve_packets: int = 0
    reserve_bytes: int = 0
    contended_packets: int = 0
    unmetered_packets: int = 0
    unmetered_bytes: int = 0
    marked_packets: int = 0
    delayed_packets: int = 0
    delayed_bytes: int = 0
    delayed_ns: int = 0
    ce_packets: int = 0
    peer_too_fast_packets: int = 0
