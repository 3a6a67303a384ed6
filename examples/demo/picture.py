"""The picture of the README: an SVG that follows the color scheme of the reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 846, 84, 286
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 12px; fill: #59636e }
.grid { stroke: #d1d9e0 }
.event { stroke: #818b98; stroke-dasharray: 3 3 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round }
.limit { stroke: #1f2328; stroke-width: 1.2 }
.a { stroke: #0969da }
.b { stroke: #bc4c00 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .event { stroke: #9198a1 }
  .limit { stroke: #f0f6fc }
  .a { stroke: #4493f8 }
  .b { stroke: #f0883e }
}
"""


@dataclass(frozen=True, slots=True)
class Event:
    """The event, and the limit from then on; None is no limit."""

    at_s: float
    text: str
    limit_mbits: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One pod."""

    name: str
    mbits: Sequence[float]


def svg(title: str, times_s: Sequence[float], lines: Sequence[Line], events: Sequence[Event]) -> str:
    """Return the picture. Each event has a dashed line, and its text stands in the part that it begins."""
    end = times_s[-1]
    top = 10 * math.ceil(max(max(line.mbits) for line in lines) / 10)

    def x(time_s: float) -> float:
        return LEFT + (RIGHT - LEFT) * time_s / end

    def y(mbits: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * mbits / top

    parts = [f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>']
    for mbits in range(0, top + 1, 20):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(mbits):.1f}" y2="{y(mbits):.1f}"/>')
        parts.append(
            f'<text class="note" x="{LEFT - 8}" y="{y(mbits) + 4:.1f}" text-anchor="end">{mbits}</text>'
        )
    parts += [
        f'<text class="note" x="{x(time_s):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{time_s} s</text>'
        for time_s in range(0, math.floor(end) + 1, 5)
    ]
    for event, until_s in zip(events, [*(each.at_s for each in events[1:]), end], strict=True):
        parts += _event(event, x(event.at_s), x(until_s), y)
    for line, style in zip(lines, "ab", strict=True):
        points = " ".join(
            f"{x(at):.1f},{y(mbits):.1f}" for at, mbits in zip(times_s, line.mbits, strict=True)
        )
        parts.append(f'<polyline class="line {style}" points="{points}"/>')
    parts += _legend(lines)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *parts, "</svg>", ""]
    )


def _event(event: Event, begin: float, end: float, y) -> list[str]:
    words = event.text.split("\n")
    parts = [
        f'<text class="note" x="{begin + 5:.1f}" y="{TOP - 34 + 15 * row}">{escape(word)}</text>'
        for row, word in enumerate(words)
    ]
    parts.append(f'<line class="event" x1="{begin:.1f}" x2="{begin:.1f}" y1="{TOP - 46}" y2="{BOTTOM}"/>')
    if event.limit_mbits is not None:
        height = y(event.limit_mbits)
        parts.append(
            f'<line class="limit" x1="{begin:.1f}" x2="{end:.1f}" y1="{height:.1f}" y2="{height:.1f}"/>'
        )
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    parts = []
    for row, (line, style) in enumerate(zip(lines, "ab", strict=True)):
        left = LEFT + 190 * row
        parts.append(
            f'<line class="line {style}" x1="{left}" x2="{left + 24}" y1="{HEIGHT - 10}" y2="{HEIGHT - 10}"/>'
        )
        parts.append(f'<text x="{left + 30}" y="{HEIGHT - 6}">{escape(line.name)}</text>')
    left = LEFT + 190 * len(lines)
    parts.append(f'<line class="limit" x1="{left}" x2="{left + 24}" y1="{HEIGHT - 10}" y2="{HEIGHT - 10}"/>')
    parts.append(f'<text x="{left + 30}" y="{HEIGHT - 6}">declared rate</text>')
    return parts
