"""Fenced blocks of the documentation."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for glob in ("*.md", "docs/**/*.md", "charts/**/*.md")
    for path in ROOT.glob(glob)
    if path.parent.name != "adr" and path.name != "CHANGELOG.md"  # both describe earlier versions
)
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)```$", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, without its indentation."""

    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in _FENCE.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        yield Block(line, found["language"].strip(), textwrap.dedent(found["text"]))


def spans(page: str) -> Iterator[Block]:
    """Yield the code in the prose of a page."""
    prose = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page)
    for found in _SPAN.finditer(prose):
        yield Block(prose.count("\n", 0, found.start()) + 1, "", found[1])
