"""The kill switch: how far limits go on this node, whatever the policies say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenbucket.core.policy import Mode

NODE_LABEL = "tokenbucket.dev/enforcement"
_MODES = {mode.value.lower(): mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class Word:
    """What one of the two places says that decide: the ConfigMap of the release, or the node's label."""

    mode: Mode | None = None
    """``None`` where it says nothing."""
    problem: str = ""
    """What is wrong with it."""

    def after(self, before: Word) -> Word:
        """This word; where it is not understood, the one ``before`` stays."""
        return Word(before.mode, self.problem) if self.problem else self


MISSING = Word(
    problem="ConfigMap: is missing; till then it is as before, or Enforce for an agent that starts"
)
"""Somebody has deleted the release's."""


@dataclass(frozen=True, slots=True)
class Switch:
    """What the release's ConfigMap says."""

    word: Word = Word()
    cleanup: bool = False
    """Nothing of ours is to stay on any node."""


def parse_switch(data: Mapping[str, object]) -> Switch:
    """Reads the data of the ConfigMap."""
    cleanup = str(data.get("cleanup", "")).lower() == "true"
    return Switch(parse_word("ConfigMap: enforcement", data.get("enforcement", "")), cleanup)


def parse_word(place: str, word: object) -> Word:
    """Reads Enforce, Observe or Off in any case. ``None``: the place says nothing."""
    if word is None:
        return Word()
    mode = _MODES.get(word.lower()) if isinstance(word, str) else None
    if mode is None:
        words = ", ".join(mode.value for mode in Mode)
        return Word(problem=f"{place}: {word!r} must be one of {words}; until then it is as before")
    return Word(mode)
