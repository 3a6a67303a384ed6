"""Compute the enforcement mode of a node from the ConfigMap of the release and the label of the node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tokenbucket.core.api.policy import Mode

NODE_LABEL = "tokenbucket.dev/enforcement"
_MODES = {mode.value.lower(): mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class EnforcementSetting:
    """The mode that one place sets: the ConfigMap of the release, or the node's label."""

    mode: Mode | None = None
    """None if the place sets no mode."""
    problem: str = ""
    """Why the value is invalid; empty if it is valid."""

    def or_previous(self, previous: EnforcementSetting) -> EnforcementSetting:
        """Return this setting or, if it is invalid, the previous mode with this problem."""
        return EnforcementSetting(previous.mode, self.problem) if self.problem else self


_MISSING = EnforcementSetting(
    problem="ConfigMap: is missing; restore it (until then the previous mode stays, or Enforce after a start)"
)


@dataclass(frozen=True, slots=True)
class EnforcementConfig:
    """The ConfigMap of the release."""

    setting: EnforcementSetting = EnforcementSetting()
    cleanup: bool = False
    """Whether all agents must remove everything that tokenbucket installed on their nodes."""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """The settings of both places. An invalid setting keeps the previous mode of its place."""

    release: EnforcementSetting = EnforcementSetting()
    node: EnforcementSetting = EnforcementSetting()
    cleanup: bool = False

    def update(self, config: EnforcementConfig | None, node: EnforcementSetting | None) -> Enforcement:
        """Return the enforcement after reading both places.

        ``config`` is None if the ConfigMap is missing. ``node`` is None if the agent does not know its node.
        """
        release = self.release
        if config:
            release = config.setting.or_previous(release)
        elif not self.cleanup:  # during a cleanup, Helm deletes the ConfigMap with the release
            release = _MISSING.or_previous(release)
        return replace(
            self,
            release=release,
            node=node.or_previous(self.node) if node else self.node,
            cleanup=config.cleanup if config else self.cleanup,
        )

    @property
    def mode(self) -> Mode:
        """Return the mode of the node. The label takes precedence over the ConfigMap."""
        return self.node.mode or self.release.mode or Mode.ENFORCE

    @property
    def decided_by(self) -> str:
        """Return the place that sets the mode."""
        return "the node's label" if self.node.mode else "the ConfigMap"

    @property
    def problem(self) -> str:
        """Return why settings are invalid, or an empty text if both are valid."""
        return "; ".join(filter(None, (self.release.problem, self.node.problem)))


def parse_enforcement_config(data: Mapping[str, object]) -> EnforcementConfig:
    """Parse the data of the ConfigMap."""
    cleanup = str(data.get("cleanup", "")).lower() == "true"
    return EnforcementConfig(parse_setting("ConfigMap: enforcement", data.get("enforcement", "")), cleanup)


def parse_setting(place: str, word: object) -> EnforcementSetting:
    """Parse Enforce, Observe or Off, in any case. None means that the place sets no mode."""
    if word is None:
        return EnforcementSetting()
    mode = _MODES.get(word.lower()) if isinstance(word, str) else None
    if mode is None:
        words = ", ".join(mode.value for mode in Mode)
        return EnforcementSetting(
            problem=f"{place}: {word!r} must be one of {words}; the previous mode stays"
        )
    return EnforcementSetting(mode)
