"""Sessions of a terminal in the documentation: commands after a prompt, and their output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PROMPT = "$ "
_VARYING = (
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b\d+[smhd](?:\d+[smhd])?(?!\w)"), "AGE"),
    (re.compile(r"\b\d+\.\d+\.\d+[\w.-]*"), "VERSION"),
    (re.compile(r"\b\d+ \(\d+B\)"), "COUNT"),
    (re.compile(r"\bveth[0-9a-f]{8}\b|\bvethweb\b"), "VETH"),
    (re.compile(r"\bweb-(?:[0-9a-f]{8,10}-[0-9a-z]{5}|\d)(?!\w)"), "web-POD"),
    (re.compile(r"\b(?:true|false)\b"), "KERNEL_HAS_FQ"),
    (re.compile(r"\bnode(?:-[a-z]+)+\b|\bn1\b"), "NODE"),
)
"""Parts that differ between two clusters."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One command, and the lines that it prints."""

    command: str
    output: tuple[str, ...]


def commands_of(text: str) -> list[Exchange]:
    """Return the commands of a session, each with its output."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(_PROMPT):
            found.append((line.removeprefix(_PROMPT), []))
        elif found:
            found[-1][1].append(line)
    return [Exchange(command, tuple(output)) for command, output in found]


def missing_lines(expected: Exchange, printed: str) -> list[str]:
    """Return the lines that the command did not print, in the order of the page. It may print more lines."""
    actual = iter([_normal(line) for line in printed.splitlines()])
    return [line for line in _lines(expected) if line not in actual]


def _lines(expected: Exchange) -> Iterator[str]:
    yield from filter(None, map(_normal, expected.output))


def _normal(line: str) -> str:
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    return " ".join(line.split())
