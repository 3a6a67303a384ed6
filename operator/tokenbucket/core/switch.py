"""The kill switch: how far limits go on this node, whatever the policies say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenbucket.core.policy import Mode

NODE_LABEL = "tokenbucket.dev/enforcement"
_MODES = {mode.value.lower(): mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class Switch:
    """What the release's ConfigMap says."""

    enforcement: Mode = Mode.ENFORCE
    cleanup: bool = False
    """Nothing of ours is to stay on any node."""
    problem: str = ""
    """What is wrong with it; then its defaults hold."""


def parse_switch(data: Mapping[str, object]) -> Switch:
    """Reads the data of the ConfigMap. A word that is none of ours changes nothing, and is said."""
    word = data.get("enforcement", Mode.ENFORCE.value)
    enforcement = parse_mode(word)
    cleanup = str(data.get("cleanup", "")).lower() == "true"
    if enforcement is None:
        problem = f"enforcement: {word!r}: must be one of {', '.join(mode.value for mode in Mode)}"
        return Switch(cleanup=cleanup, problem=problem)
    return Switch(enforcement, cleanup)


def parse_mode(word: object) -> Mode | None:
    """Enforce, Observe or Off in any case; ``None`` for anything else."""
    return _MODES.get(word.lower()) if isinstance(word, str) else None
