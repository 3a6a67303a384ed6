"""The effect that a limit in Observe mode would have if it were enforced, from its counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the plugin uses only the words
    from tokenbucket.core.limits.slot import SlotConfig
    from tokenbucket.core.limits.stats import Stats

_VERBS = {"delayed": "delay", "dropped": "drop", "marked": "mark"}


def shares(config: SlotConfig, stats: Stats) -> dict[str, float]:
    """Return the shares of the bytes that would be delayed, dropped or marked.

    Empty for an enforced limit, and without traffic.
    """
    total = stats.conform_bytes + stats.too_fast_bytes
    if not config.observe or not total:
        return {}
    rejected = "dropped" if config.dscp is None else "marked"
    found = {rejected: stats.forwarded_bytes / total}
    return {"delayed": stats.delayed_bytes / total} | found if config.max_delay_q else found


def describe(config: SlotConfig, stats: Stats) -> str:
    """Return the effect in words, such as "would drop 1.2 %"; empty without one."""
    found = in_words(shares(config, stats))
    return f"would {found}" if found else ""


def in_words(shares: Mapping[str, float]) -> str:
    """Return shares in words, such as "drop 1.2 %"; empty without one."""
    return ", ".join(f"{_VERBS[name]} {100 * share:.3g} %" for name, share in shares.items())


def worst_in_words(shares: Mapping[str, float]) -> str:
    """Return the share of the worst effect, such as "drop 1.2%"; the loss of a packet is worse than delay."""
    if not shares:
        return ""
    found = [item for item in shares.items() if item[1]] or [*shares.items()]
    name, share = found[-1]
    return f"{_VERBS[name]} <0.1%" if 0 < share < 0.001 else f"{_VERBS[name]} {100 * share:.3g}%"
