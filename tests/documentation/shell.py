"""Commands of a block of shell: enough of the grammar for documentation, and an error for all else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEREDOC = re.compile(r"^(?P<command>.*)<<'(?P<end>\w+)'\n(?P<text>(?:.*\n)*?)(?P=end)$", re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\(((?:[^()']|'[^']*')*)\)")
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")
_SEPARATORS = {"|", "||", "&&", "&", ";"}
_PUNCTUATION = "|&;<>"


@dataclass(slots=True)
class Command:
    """One simple command."""

    words: list[str]
    writes: list[str] = field(default_factory=list)
    """Files that its output goes to."""
    stdin: str = ""
    """The text of its here-document."""


def commands(text: str) -> Iterator[Command]:
    """Yield the commands in the order in which a shell starts them. Raises ValueError."""
    text = text.replace("\\\n", " ")
    position = 0
    for found in _HEREDOC.finditer(text):
        yield from _of_lines(text[position : found.start()])
        *before, last = _of_lines(found["command"])
        yield from before
        last.stdin = found["text"]
        yield last
        position = found.end()
    yield from _of_lines(text[position:])


def _of_lines(text: str) -> Iterator[Command]:
    for line in text.splitlines():
        for inner in _SUBSTITUTION.findall(line):
            yield from _of_lines(inner)
        yield from _of_words(_words(_SUBSTITUTION.sub("SUBSTITUTED", line)))


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_PUNCTUATION)
    lexer.commenters = ""
    lexer.whitespace_split = True
    return list(lexer)


def _without_comment(words: list[str]) -> list[str]:
    comment = next((index for index, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _of_words(words: list[str]) -> Iterator[Command]:
    current, pending = Command([]), iter(_without_comment(words))
    for word in pending:
        if word in _SEPARATORS:
            yield from _finished(current)
            current = Command([])
        elif word in {">", ">>"}:
            current.writes.append(next(pending))
        elif set(word) <= set(_PUNCTUATION):
            raise ValueError(f"{word}: the checks do not know this operator; use another or extend them")
        elif current.words or not _VARIABLE.match(word):
            current.words.append(word)
    yield from _finished(current)


def _finished(command: Command) -> Iterator[Command]:
    if command.words:
        yield command
