"""The live figures of one pod, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokenbucket.core.limits import dry_run
from tokenbucket.plugin.explain.evidence import Evidence
from tokenbucket.plugin.rates import rates_of_minute
from tokenbucket.units import format_bit_rate

Document = Mapping[str, Any]
_VERDICTS = (
    ("conformPackets", "conformed"),
    ("delayedPackets", "delayed"),
    ("droppedPackets", "dropped"),
    ("markedPackets", "marked"),
    ("forwardedPackets", "forwarded in spite of the limit"),
    ("reservePackets", "within the reserve of the node"),
)


def figures(found: Evidence) -> Iterator[tuple[str, list[str]]]:
    """Yield the sections with their titles. Without live figures, the only line has the reason."""
    if found.live is None:
        yield "Live figures", [found.live_problem] if found.live_problem else []
        return
    limits = sorted(found.live.get("limits") or (), key=lambda each: each.get("direction") == "egress")
    yield "Attachment", [f"{each.get('direction')}: {_hooks(each)}" for each in limits]
    yield "Foreign programs", [str(each) for each in found.live.get("foreignPrograms") or ()]
    yield "Last minute", [f"{each.get('direction')}: {_minute(each)}" for each in limits]
    yield "Busiest peers", [line for each in limits for line in _peers(each)]


def _hooks(limit: Document) -> str:
    hooks = [f"{each.get('attachment')} at {each.get('interface')}" for each in limit.get("hooks") or ()]
    return ", ".join(hooks) or "not attached"


def _minute(limit: Document) -> str:
    minute, rates = limit.get("lastMinute"), rates_of_minute(limit)
    if not minute:
        return "no figures yet: the agent has counted for less than a minute"
    packets = [f"{minute[key]:,.0f} {word}" for key, word in _VERDICTS if minute.get(key)]
    seconds = minute.get("seconds") or 60
    rate = format_bit_rate(round(8 * minute.get("admittedBytes", 0) / seconds))
    would = dry_run.in_words(rates.dry_run) if rates else ""
    share = f"; of the bytes, the limit would {would}" if would else ""
    return f"{rate} admitted; packets: {', '.join(packets)}{share}" if packets else "no packets"


def _peers(limit: Document) -> Iterator[str]:
    for peer in limit.get("peers") or ():
        left = 100 * peer.get("tokensOfBurst", 0)
        tokens = f"owes {-left:.0f} % of its burst" if left < 0 else f"{left:.0f} % of its burst left"
        yield f"{limit.get('direction')} {peer.get('peer')}: {tokens}"
