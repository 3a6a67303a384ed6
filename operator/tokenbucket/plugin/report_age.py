"""Decide whether the report of a node is outdated, even if no controller judges it. Pure."""

from __future__ import annotations

from tokenbucket.core.api.node_report import Sync
from tokenbucket.units import unix_time

_LEAST_S = 100.0
"""Least age of an outdated report, in seconds."""


def why_old(sync: Sync, now: float) -> str:
    """Return how old an outdated report is; empty if it is recent, or has no time."""
    age_s = now - unix_time(sync.last) if sync.last else 0.0
    return f"last report {age_s:.0f} s ago" if age_s > max(sync.silent_after_s, _LEAST_S) else ""
