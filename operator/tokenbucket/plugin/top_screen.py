"""The screen of ``kubectl tokenbucket top``: as many columns as fit, and as many rows as fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokenbucket.core.limits import dry_run
from tokenbucket.core.planning.reasons import Effect
from tokenbucket.core.status.summary import in_number
from tokenbucket.plugin.screen import styled
from tokenbucket.plugin.top_rows import ENFORCED, Row

_BARS = "▁▂▃▄▅▆▇█"
_NEAR, _FULL = 0.7, 0.95
_STYLES = {Effect.FAILED.value: "red", Effect.PENDING.value: "yellow", Effect.DEGRADED.value: "yellow"}
_SHORT = {"ingress": "in", "egress": "out"}
_NARROW, _VERY_WIDE = 120, 170
_FRAME_LINES = 4
"""Lines that are no rows: the title, an empty line, the header, and one below."""
_SILENT_SHARE = 4
"""The lines about nodes without an answer have at most the height divided by this number."""
_LEAST, _LEAST_OF_POD = 12, 24
"""Minimum widths of names, and of pods if there is room, as long as there are columns to leave out."""
_FIRST_LEFT_OUT = (
    "TREND", "WAIT", "MARK/S", "ATTACHMENT", "LIMIT", "DELAY/S", "POLICY", "NODE", "NAMESPACE", "DROP/S",
    "WOULD", "USED", "DIR",
)  # fmt: skip
"""Columns that a screen without enough room leaves out, the first one first."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one screen shows."""

    rows: Sequence[Row]
    title: str
    silent: Mapping[str, str]
    with_namespace: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cell: Callable[[Row], Text]
    right: bool = False
    least: int = 0
    """Minimum width of a column of names, which is cut if the screen is too narrow; 0 for figures."""
    keeps_end: bool = False
    """Whether a text that does not fit loses its middle: names of one workload differ in their ends."""

    def width(self, rows: Sequence[Row]) -> int:
        """Return the width that fits all cells."""
        return max(len(self.name), *(self.cell(row).cell_len for row in rows))


def screen(view: View, width: int, height: int | None = None) -> RenderableType:
    """Return the screen. With a height, leave out the rows that do not fit."""
    silent = _silent_lines(view, height)
    shown = view.rows
    if height is not None:
        shown = shown[: max(1, height - _FRAME_LINES - len(silent))]
    parts: list[RenderableType] = [_one_line(view.title, "bold"), Text()]
    if shown:
        parts.append(_table(shown, view, width))
    else:
        where = "of the nodes that answered" if view.silent else "with these options; see kubectl get tbp"
        parts.append(_one_line(f"no limit to show {where}"))
    if len(shown) < len(view.rows):
        parts.append(Text(f"... and {len(view.rows) - len(shown)} more", "dim"))
    return Group(*parts, *silent)


def _one_line(text: str, style: str = "") -> Text:
    """Return a text that is cut at the end of the line: more lines would move the rows off the screen."""
    found = styled(text, style)
    found.no_wrap, found.overflow = True, "ellipsis"
    return found


def _silent_lines(view: View, height: int | None) -> list[Text]:
    """Return a line for each problem of nodes without an answer, as many as fit."""
    nodes: dict[str, list[str]] = {}
    for node, problem in view.silent.items():
        nodes.setdefault(problem, []).append(node)
    lines = [f"{_listed(names)}: {problem}" for problem, names in nodes.items()]
    most = len(lines) if height is None else max(1, height // _SILENT_SHARE)
    if len(lines) > most:
        hidden = sum(map(len, list(nodes.values())[most - 1 :]))
        lines[most - 1 :] = [
            f"{in_number(hidden, 'further node' if most > 1 else 'node')}: no answer, with different problems"
        ]
    return [styled(line, "red") if height is None else _one_line(line, "red") for line in lines]


def _listed(names: list[str]) -> str:
    more = len(names) - 3
    listed = ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
    return f"{'node' if len(names) == 1 else 'nodes'} {listed}"


def _table(rows: Sequence[Row], view: View, width: int) -> Table:
    gap = 2 if width >= _NARROW else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    columns = _fitting(_columns(rows, view, width), rows, width, gap)
    cells = [[column.cell(row) for column in columns] for row in rows]
    sizes = _widths(columns, rows, width, gap)
    for column, size in zip(columns, sizes, strict=True):
        justify: Literal["right", "left"] = "right" if column.right else "left"
        table.add_column(column.name, justify=justify, no_wrap=True, overflow="ellipsis", width=size)
    for row, texts in zip(rows, cells, strict=True):
        fitting = (
            _cut(text, size) if column.keeps_end else text
            for column, text, size in zip(columns, texts, sizes, strict=True)
        )
        table.add_row(*fitting, style=_STYLES.get(row.effect, ""))
    return table


def _fitting(columns: list[_Column], rows: Sequence[Row], width: int, gap: int) -> list[_Column]:
    """Return the columns that fit with readable names. The pod, its rate and its state always stay."""
    least = {each.name: min(each.least or width, each.width(rows)) for each in columns}
    for name in _FIRST_LEFT_OUT:
        if sum(least.values()) + gap * (len(least) - 1) <= width:
            break
        least.pop(name, None)
    return [each for each in columns if each.name in least]


def _cut(text: Text, width: int) -> Text:
    """Return a text without its middle if it does not fit."""
    if text.cell_len <= width:
        return text
    end = (width - 1) * 2 // 3
    return Text(f"{text.plain[: width - 1 - end]}…{text.plain[len(text.plain) - end :]}", text.style)


def _widths(columns: Sequence[_Column], rows: Sequence[Row], width: int, gap: int) -> list[int]:
    """Return the widths of the columns. If the screen is too narrow, the widest names are cut."""
    found = [column.width(rows) for column in columns]
    excess = sum(found) + gap * (len(found) - 1) - width
    names = [index for index, column in enumerate(columns) if column.least]
    for _ in range(excess):
        roomy = [index for index in names if found[index] > columns[index].least]
        widest = max(roomy or names, key=lambda index: found[index])
        found[widest] = max(1, found[widest] - 1)
    return found


def _columns(rows: Sequence[Row], view: View, width: int) -> list[_Column]:
    has_room = width >= _NARROW
    wide = view.wide or has_room
    of_pod = _LEAST_OF_POD if has_room else _LEAST
    with_limit = view.wide or width >= _VERY_WIDE
    has_history = any(len(row.history) > 1 for row in rows)
    has_marks = any(row.rates and row.rates.marked for row in rows)
    observes = any(row.state == "Observe" for row in rows)
    deviates = any(row.state not in {ENFORCED, "Observe"} for row in rows)
    found = [
        (
            _Column("NAMESPACE", lambda row: styled(row.namespace), least=_LEAST, keeps_end=True),
            view.with_namespace,
        ),
        (_Column("POD", lambda row: styled(row.pod), least=of_pod, keeps_end=True), True),
        (_Column("NODE", lambda row: styled(row.node), least=_LEAST, keeps_end=True), wide),
        (
            _Column(
                "DIR",
                lambda row: styled(row.direction if has_room else _SHORT.get(row.direction, row.direction)),
            ),
            True,
        ),
        (_Column("RATE", lambda row: styled(_rate(row)), right=True), True),
        (_Column("USED", _used, right=True), True),
        (_Column("TREND", lambda row: _trend(row, 12 if has_room else 6)), has_history),
        (_Column("WAIT", lambda row: _figure(row, "wait_s", _duration), right=True), True),
        (_Column("DELAY/S", lambda row: _figure(row, "delayed"), right=True), True),
        (_Column("DROP/S", lambda row: _figure(row, "dropped", style="red"), right=True), True),
        (_Column("MARK/S", lambda row: _figure(row, "marked"), right=True), wide or has_marks),
        (_Column("WOULD", lambda row: styled(_would(row, short=width < _VERY_WIDE))), observes),
        (_Column("POLICY", lambda row: styled(row.policy), least=_LEAST), True),
        (_Column("ATTACHMENT", lambda row: styled(row.attachment or "-"), least=_LEAST), wide),
        (_Column("LIMIT", lambda row: styled(row.limit or "-"), least=_LEAST), with_limit),
        (_Column("STATE", lambda row: styled(row.state), least=_LEAST), wide or deviates or observes),
    ]
    return [column for column, is_shown in found if is_shown]


def _rate(row: Row) -> str:
    if not row.rates:
        return "-"
    return scaled(row.rates.bits) + "bit" * bool(row.rates.bits)


def _used(row: Row) -> Text:
    share = row.rates.share if row.rates else None
    if share is None:
        return Text("-")
    return Text(f"{share:.0%}", "bold red" if share >= _FULL else "yellow" if share >= _NEAR else "")


def _figure(row: Row, name: str, text: Callable[[float], str] | None = None, style: str = "") -> Text:
    if not row.rates:
        return Text("-")
    value = getattr(row.rates, name)
    return Text((text or scaled)(value), style) if value else Text("0", "dim")


def _would(row: Row, *, short: bool) -> str:
    shares = row.rates.dry_run if row.rates else {}
    return (dry_run.worst_in_words(shares) if short else dry_run.in_words(shares)) or "-"


def _trend(row: Row, length: int) -> Text:
    """Return a sparkline, in which a full bar is the whole limit."""
    recent = row.history[-length:]
    levels = (min(len(_BARS) - 1, max(0, int(share * len(_BARS)))) for share in recent)
    return Text("".join(_BARS[level] for level in levels).rjust(length), "cyan")


def scaled(value: float) -> str:
    """Return a number with three digits and a suffix."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.1f}" if 0 < value < 1 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{1000 * seconds:.3g}ms" if seconds >= 0.001 else f"{1e6 * seconds:.0f}us"
