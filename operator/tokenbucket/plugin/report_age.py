"""Decide whether the report of a node is outdated, even if no controller judges it. Pure."""

from __future__ import annotations

from tokenbucket.core.api.node_report import Sync
from tokenbucket.plugin.explain.evidence import unix_time

_MISSED, _LEAST_S = 2.5, 100.0
"""Number of periods, and time, after which a report is outdated."""


def why_old(sync: Sync, now: float) -> str:
    """Return how old an outdated report is; empty if it is recent, or has no time."""
    age_s = now - unix_time(sync.last) if sync.last else 0.0
    return f"last report {age_s:.0f} s ago" if age_s > max(_MISSED * sync.period_s, _LEAST_S) else ""
