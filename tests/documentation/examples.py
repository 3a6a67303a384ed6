"""Examples of the documentation: the blocks of a section that run together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.documentation.blocks import PAGES, ROOT, Block, blocks
from tests.documentation.sessions import commands_of


@dataclass(frozen=True, slots=True)
class Place:
    """A section of a page, and the number of a block if the section has several examples."""

    page: str
    title: str
    number: int = 0

    def __str__(self) -> str:
        number = f" ({self.number})" if self.number else ""
        return f"{Path(self.page).stem}: {self.title}{number}"


def runs(block: Block) -> bool:
    """Return whether a reader can run, apply or send the block."""
    if block.language in {"text", "console"}:
        return bool(commands_of(block.text))
    return block.language in {"sh", "yaml"} or '"uids"' in block.text


def sections(page: Path) -> Iterator[tuple[Place, list[Block]]]:
    """Yield the sections that have blocks."""
    line = 0
    for text in (ROOT / page).read_text().split("\n## "):
        found = [Block(line + each.line, each.language, each.text) for each in blocks(text)]
        line += text.count("\n") + 1
        title = text.strip().partition("\n")[0].removeprefix("# ")
        if found:
            yield Place(str(page), title), found


ALONE = {
    Place("charts/tokenbucket/README.md", "Uninstallation"),
    Place("docs/reference/live.md", "Access"),
    Place("docs/reference/metrics.md", "Activation"),
    Place("docs/troubleshooting.md", "No limit on the node"),
}
"""Sections whose blocks are choices, or need different states."""


def examples() -> Iterator[tuple[Place, list[Block]]]:
    """Yield the examples of all pages, with the blocks that do not run."""
    for page in PAGES:
        for place, found in sections(page):
            if place in ALONE:
                for number, block in enumerate(found, 1):
                    yield Place(place.page, place.title, number), [block]
            else:
                yield place, found
