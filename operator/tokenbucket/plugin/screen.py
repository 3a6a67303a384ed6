"""Print results for people, and as JSON or YAML for programs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenbucket.plugin.options import Output
from tokenbucket.plugin.plain_text import plain

__all__ = ["console", "plain", "print_line", "print_structured", "print_title", "styled", "table"]
_UNLIMITED = 10_000
"""Columns of a pipe or a file: lines must not break where other programs read them."""
_NARROWEST = 20
"""Columns that fit an indented word. COLUMNS can be 0."""


def console(options: argparse.Namespace) -> Console:
    """Return the console of the standard output. COLUMNS sets its width, NO_COLOR turns colors off."""
    is_fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    no_color = options.no_color or bool(os.environ.get("NO_COLOR"))
    found = Console(
        highlight=False, markup=False, emoji=False, no_color=no_color,
        color_system=None if no_color else "auto", width=None if is_fixed else _UNLIMITED,
    )  # fmt: skip
    found.width = max(found.width, _NARROWEST)
    return found


def styled(text: object, style: str = "") -> Text:
    """Return a text that no program on a node can use to control the terminal."""
    return Text(plain(text), style)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], styles: Mapping[str, str]) -> Table:
    """Return a table in the format of kubectl. ``styles`` maps the words of cells to styles."""
    found = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in header:
        found.add_column(name, overflow="fold")
    for row in rows:
        found.add_row(*(styled(cell, styles.get(str(cell), "")) for cell in row))
    return found


def print_title(console: Console, title: str) -> None:
    """Print the title of a section, after an empty line."""
    console.print()
    console.print(styled(title, "bold"))


def print_line(console: Console, text: str, *, indent: int = 2, hang: int = 0, style: str = "") -> None:
    """Print an indented text. Lines that do not fit continue with ``hang`` more spaces."""
    first = " " * indent
    lines = textwrap.wrap(
        plain(text), console.width, initial_indent=first, subsequent_indent=first + " " * hang,
        break_on_hyphens=False, drop_whitespace=True,
    )  # fmt: skip
    for line in lines:
        console.print(Text(line, style), soft_wrap=True)


def print_structured(value: Any, form: Output) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print a value as JSON or YAML."""
    if form is Output.JSON:
        print(json.dumps(value, indent=2))
    else:
        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=False).rstrip())
