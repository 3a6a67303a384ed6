"""Rates of a limit, from two readings of its counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.core.api.policy import ExceedAction

_SECOND_NS = 10**9
_COUNTERS = (
    "admittedBytes",
    "admittedPackets",
    "exceedBytes",
    "delayedBytes",
    "delayedPackets",
    "delayedNanoseconds",
    "droppedPackets",
    "forwardedPackets",
    "markedPackets",
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Figures of one limit per second. Packets are wire packets."""

    bits: float
    packets: float
    delayed: float
    dropped: float
    marked: float
    exceeding: float
    """Packets that exceed the limit and pass, because it only observes."""
    wait_s: float
    """Mean delay of the delayed packets or, without any, the length of the queue."""
    share: float | None
    """The larger of both rates, as a share of the limit. ``None`` without a rate of the pod."""
    dry_run: Mapping[str, float] = field(default_factory=dict)
    """In mode Observe, with traffic: shares of the bytes that would be delayed, dropped or marked."""


def rates_between(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Rates | None:
    """Return the rates between two readings of a limit. ``None`` if they do not belong to one slot."""
    if not before:
        return None
    seconds = (_number(now, "monotonicNanoseconds") - _number(before, "monotonicNanoseconds")) / _SECOND_NS
    return _rates({name: _number(now, name) - _number(before, name) for name in _COUNTERS}, seconds, now)


def rates_of_minute(now: Mapping[str, Any]) -> Rates | None:
    """Return the rates of the last minute, if the agent knows it."""
    minute = now.get("lastMinute")
    if not isinstance(minute, Mapping):
        return None
    return _rates({name: _number(minute, name) for name in _COUNTERS}, _number(minute, "seconds"), now)


def _rates(counts: Mapping[str, float], seconds: float, limit: Mapping[str, Any]) -> Rates | None:
    if seconds <= 0 or min(counts.values()) < 0:
        return None
    bits = 8 * counts["admittedBytes"] / seconds
    packets = counts["admittedPackets"] / seconds
    delayed = counts["delayedPackets"]
    wait_ns = counts["delayedNanoseconds"] / delayed if delayed else _number(limit, "waitNanoseconds")
    observes = limit.get("mode") == "Observe"
    excess = counts["forwardedPackets"] + delayed
    return Rates(
        bits,
        packets,
        0.0 if observes else delayed / seconds,
        counts["droppedPackets"] / seconds,
        counts["markedPackets"] / seconds,
        excess / seconds if observes else 0.0,
        0.0 if observes else wait_ns / _SECOND_NS,
        _share(bits, packets, limit),
        _dry_run(counts, str(limit.get("exceedAction"))) if observes and bits else {},
    )


def _dry_run(counts: Mapping[str, float], action: str) -> dict[str, float]:
    excess = {"marked" if action == ExceedAction.MARK else "dropped": counts["exceedBytes"]}
    if action == ExceedAction.DELAY:
        excess = {"delayed": counts["delayedBytes"]} | excess
    return {name: size / counts["admittedBytes"] for name, size in excess.items()}


def _share(bits: float, packets: float, limit: Mapping[str, Any]) -> float | None:
    used = ((bits, _number(limit, "bitsPerSecond")), (packets, _number(limit, "packetsPerSecond")))
    shares = [rate / most for rate, most in used if most]
    return max(shares, default=None)


def _number(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    return value if isinstance(value, int | float) else 0
