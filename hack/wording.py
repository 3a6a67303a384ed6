"""Measure banned words in docs, CRDs and Helm values, per 1,000 words, and fail above a limit.

CONTRIBUTING.md has the rule of writing that these limits belong to.
Code, URLs and headings are left out: only prose counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Pattern: hits per 1,000 words, at most.
#
# "what" counts unless it asks: its sentence ends with "?", or "to" or "if" follows ("what to do", "what if").
# "is to" counts with a verb after it ("is to go"), and not with an article ("access is to the node").
_QUESTION = r"(?![^.!?|\n]*(?:\n(?!\n)[^.!?|\n]*)*\?)"
LIMITS = {
    "what as a noun": (rf"\bwhat(?:ever)?\b(?!\s+(?:to|if)\b){_QUESTION}", 1.0),
    "says, said": (r"\bsa(?:ys|id)\b", 0.4),
    "tells, told": (r"\bt(?:ells|old)\b", 0.2),
    "whoever, nobody, somebody, everybody": (r"\b(?:whoever|(?:no|some|every|any)body)\b", 0.2),
    "in force": (r"\bin\s+force\b", 0.3),
    "is to, are to": (r"\b(?:is|are|was|were)\s+to\s+(?!(?:the|a|an|this|that|each|every)\b)[a-z]+\b", 0.4),
    "anew": (r"\banew\b", 0.0),
    "of ours": (r"\bours\b", 0.0),
}
PATTERNS = {name: (re.compile(regex, re.IGNORECASE), limit) for name, (regex, limit) in LIMITS.items()}
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")

# Everything in Markdown that is no prose: fenced code, comments, headings, inline code, targets of links.
_NO_PROSE = re.compile(
    r"^ *(`{3,}|~{3,}).*?^ *\1|<!--.*?-->|^#+ .*?$|(`+)(?!`).+?(?<!`)\2(?!`)|(?<=\])\([^)\s]*\)|https?://\S+",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Text:
    """The prose of one file; each line is where it is in the file, so that a hit has its number."""

    name: str
    prose: str


def markdown(text: str) -> str:
    """Return the prose of a Markdown page, with the page's line breaks."""
    return _NO_PROSE.sub(lambda found: "\n" * found[0].count("\n"), text)


def crds(text: str) -> str:
    """Return the descriptions and messages of CRDs, with the file's line breaks."""
    lines = text.splitlines()
    prose = [""] * len(lines)
    for root in yaml.compose_all(text, LOADER):
        for value in _described(root):
            first, last = value.start_mark.line, value.end_mark.line - (value.style in {"|", ">"})
            prose[first : last + 1] = [lines[first][value.start_mark.column :], *lines[first + 1 : last + 1]]
    return "\n".join(prose)


def _described(node: yaml.Node | None) -> Iterable[yaml.Node]:
    """Yield every text below a key that people read."""
    for entry in node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else ():
        key, value = entry if isinstance(entry, tuple) else (None, entry)
        if key is not None and key.value in {"description", "message"} and isinstance(value, yaml.ScalarNode):
            yield value
        yield from _described(value)


def values(text: str) -> str:
    """Return the comments of a values file, with the file's line breaks."""
    comments = [re.fullmatch(r"\s*#(?: --)?(.*)", line) for line in text.splitlines()]
    return "\n".join(comment[1] if comment else "" for comment in comments)


def hits(text: Text, pattern: re.Pattern[str]) -> list[str]:
    """Return file, line and words of each place that a pattern matches."""
    return [
        f"{text.name}:{text.prose.count(chr(10), 0, found.start()) + 1}: {_around(text.prose, found)}"
        for found in pattern.finditer(text.prose)
    ]


def _around(prose: str, found: re.Match[str]) -> str:
    return " ".join(prose[max(0, found.start() - 30) : found.end() + 30].split())


def check(kind: str, texts: list[Text]) -> tuple[list[str], list[str]]:
    """Return one line with the figures of a kind of text, and the hits of each pattern above its limit."""
    words = sum(len(WORD.findall(text.prose)) for text in texts) or 1
    figures, problems = [], []
    for name, (pattern, limit) in PATTERNS.items():
        found = [hit for text in texts for hit in hits(text, pattern)]
        rate = 1000 * len(found) / words
        figures.append(f"{name} {rate:.2f}")
        if rate > limit:
            problems += [f'{kind}: "{name}" {rate:.2f} per 1,000 words, at most {limit}', *found]
    return [f"{kind}: {words:,} words; {'; '.join(figures)}"], problems


def read(reader: Callable[[str], str], *globs: str) -> list[Text]:
    paths = sorted(path for glob in globs for path in ROOT.glob(glob))
    return [Text(str(path.relative_to(ROOT)), reader(path.read_text())) for path in paths]


def main() -> int:
    kinds = {
        "docs": read(markdown, "*.md", "docs/**/*.md", "charts/**/*.md", "tests/**/*.md"),
        "crds": read(crds, "crds/*.yaml"),
        "values": read(values, "charts/*/values.yaml"),
    }
    checked = [check(kind, texts) for kind, texts in kinds.items()]
    problems = [line for _, found in checked for line in found]
    lines = problems or ([line for figures, _ in checked for line in figures] if "-v" in sys.argv else [])
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
