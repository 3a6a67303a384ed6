"""The kill switch: how far limits go on this node, whatever the policies say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenbucket.core.api.policy import Mode

NODE_LABEL = "tokenbucket.dev/enforcement"
_MODES = {mode.value.lower(): mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class EnforcementSetting:
    """What one of the two places says that decide: the ConfigMap of the release, or the node's label."""

    mode: Mode | None = None
    """``None`` where it says nothing."""
    problem: str = ""
    """What is wrong with it."""

    def after(self, before: EnforcementSetting) -> EnforcementSetting:
        """This word; where it is not understood, the one ``before`` stays."""
        return EnforcementSetting(before.mode, self.problem) if self.problem else self


MISSING = EnforcementSetting(
    problem="ConfigMap: is missing; till then it is as before, or Enforce for an agent that starts"
)
"""Somebody has deleted the release's."""


@dataclass(frozen=True, slots=True)
class EnforcementConfig:
    """What the release's ConfigMap says."""

    word: EnforcementSetting = EnforcementSetting()
    cleanup: bool = False
    """Nothing of ours is to stay on any node."""


def parse_enforcement_config(data: Mapping[str, object]) -> EnforcementConfig:
    """Reads the data of the ConfigMap."""
    cleanup = str(data.get("cleanup", "")).lower() == "true"
    return EnforcementConfig(parse_setting("ConfigMap: enforcement", data.get("enforcement", "")), cleanup)


def parse_setting(place: str, word: object) -> EnforcementSetting:
    """Reads Enforce, Observe or Off in any case. ``None``: the place says nothing."""
    if word is None:
        return EnforcementSetting()
    mode = _MODES.get(word.lower()) if isinstance(word, str) else None
    if mode is None:
        words = ", ".join(mode.value for mode in Mode)
        return EnforcementSetting(
            problem=f"{place}: {word!r} must be one of {words}; until then it is as before"
        )
    return EnforcementSetting(mode)
