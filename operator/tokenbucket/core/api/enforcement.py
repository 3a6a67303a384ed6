"""Compute the enforcement mode of a node from its label and two ConfigMaps: of the release, and the override.

Tools that install the release revert changes of its ConfigMap. They do not render the override ConfigMap,
which an administrator creates in an emergency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tokenbucket.core.api.policy import Mode


class ModeSource(StrEnum):
    """A source of the mode. An earlier one has precedence."""

    LABEL = "label"
    OVERRIDE = "override"
    RELEASE = "release"


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
    problem=(
        "ConfigMap: is missing; restore it (until then, agents keep the previous mode, or start with Enforce)"
    )
)


@dataclass(frozen=True, slots=True)
class EnforcementConfig:
    """The ConfigMap of the release, or the override ConfigMap."""

    setting: EnforcementSetting = EnforcementSetting()
    cleanup: bool = False
    """Whether all agents must remove everything that tokenbucket installed on their nodes."""
    created: str = ""
    """Time at which the ConfigMap was created."""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """The settings of all places. An invalid setting keeps the previous mode of its place."""

    release: EnforcementSetting = EnforcementSetting()
    node: EnforcementSetting = EnforcementSetting()
    cleanup: bool = False
    override: EnforcementSetting = EnforcementSetting()
    overridden_since: str = ""
    """Time at which the override ConfigMap was created. Empty if there is none."""

    def update(
        self,
        config: EnforcementConfig | None,
        node: EnforcementSetting | None,
        override: EnforcementConfig | None = None,
    ) -> Enforcement:
        """Return the enforcement after reading all places.

        ``config`` is None if the ConfigMap is missing, which is normal for ``override``. ``node`` is None if
        the agent does not know its node.
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
            cleanup=(config.cleanup if config else self.cleanup) or bool(override and override.cleanup),
            override=override.setting.or_previous(self.override) if override else EnforcementSetting(),
            overridden_since=override.created if override else "",
        )

    @property
    def mode(self) -> Mode:
        """Return the mode of the node."""
        return self.node.mode or self.override.mode or self.release.mode or Mode.ENFORCE

    @property
    def decided_by(self) -> ModeSource:
        """Return the place that sets the mode."""
        return (
            ModeSource.LABEL
            if self.node.mode
            else ModeSource.OVERRIDE
            if self.override.mode
            else ModeSource.RELEASE
        )

    @property
    def problem(self) -> str:
        """Return why settings are invalid, or an empty text if all of them are valid."""
        places = (self.release, self.override, self.node)
        return "; ".join(setting.problem for setting in places if setting.problem)

    @property
    def notice(self) -> str:
        """Return the mode and the age of an override. Empty if there is none."""
        if not self.override.mode:
            return ""
        since = f" since {self.overridden_since}" if self.overridden_since else ""
        return f"override ConfigMap: sets {self.override.mode}{since}; delete it to end the override"


def parse_enforcement_config(
    data: Mapping[str, object], place: str = "ConfigMap", created: str = ""
) -> EnforcementConfig:
    """Parse the data of a ConfigMap. ``place`` names it in problems."""
    cleanup = str(data.get("cleanup", "")).lower() == "true"
    setting = parse_setting(f"{place}: enforcement", data.get("enforcement", ""))
    return EnforcementConfig(setting, cleanup, created)


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
