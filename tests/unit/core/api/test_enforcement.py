"""The enforcement mode of a node."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.enforcement import (
    Enforcement,
    EnforcementConfig,
    EnforcementSetting,
    ModeSource,
    parse_enforcement_config,
    parse_setting,
)
from tokenbucket.core.api.policy import Mode


@pytest.mark.parametrize("word", ["Off", "off", "OFF"])
def test_modes_are_case_insensitive(word: str) -> None:
    """Accept a mode that was typed in a hurry."""
    assert parse_enforcement_config({"enforcement": word}) == EnforcementConfig(EnforcementSetting(Mode.OFF))


OFF = Enforcement(EnforcementSetting(Mode.OFF))


@pytest.mark.parametrize("config", [parse_enforcement_config({}), None], ids=["empty", "missing"])
def test_a_configmap_that_sets_no_mode_changes_nothing_and_is_reported(
    config: EnforcementConfig | None,
) -> None:
    """Keep enforcement off if the ConfigMap of an emergency is deleted."""
    after = OFF.update(config, None)
    assert after.mode is Mode.OFF
    assert after.problem


def test_a_cleanup_continues_without_its_configmap() -> None:
    """Continue, because the ConfigMap can be deleted with the release while agents still run."""
    cleaning = OFF.update(EnforcementConfig(EnforcementSetting(Mode.OFF), cleanup=True), None)
    after = cleaning.update(None, None)
    assert (after.cleanup, after.problem, after.mode) == (True, "", Mode.OFF)


def test_the_node_label_has_precedence_over_the_configmap() -> None:
    """Require that the label exists and is valid."""
    observed = OFF.update(EnforcementConfig(EnforcementSetting(Mode.OFF)), EnforcementSetting(Mode.OBSERVE))
    assert (observed.mode, observed.decided_by) == (Mode.OBSERVE, ModeSource.LABEL)
    config = EnforcementConfig(EnforcementSetting(Mode.OFF))
    assert observed.update(config, None).mode is Mode.OBSERVE
    without = observed.update(config, EnforcementSetting())
    assert (without.mode, without.decided_by) == (Mode.OFF, ModeSource.RELEASE)


def config(mode: Mode, *, cleanup: bool = False) -> EnforcementConfig:
    return EnforcementConfig(EnforcementSetting(mode), cleanup)


@pytest.mark.parametrize("release", [config(Mode.ENFORCE), config(Mode.OBSERVE), None])
def test_the_override_ranks_between_the_node_label_and_the_configmap(
    release: EnforcementConfig | None,
) -> None:
    """Use the current mode of the release after the override is deleted."""
    before = Enforcement().update(config(Mode.OBSERVE), None)
    overridden = before.update(release, None, config(Mode.OFF))
    assert (overridden.mode, overridden.decided_by) == (Mode.OFF, ModeSource.OVERRIDE)
    assert "override ConfigMap: sets Off" in overridden.notice
    labeled = overridden.update(release, EnforcementSetting(Mode.ENFORCE), config(Mode.OFF))
    assert (labeled.mode, labeled.decided_by) == (Mode.ENFORCE, ModeSource.LABEL)
    without = overridden.update(release, None)
    assert (without.mode, without.notice) == (release.setting.mode if release else Mode.OBSERVE, "")


def test_an_invalid_override_keeps_the_mode_and_is_reported() -> None:
    """Keep the mode of the last valid override, or else the mode of the release."""
    typo = parse_enforcement_config({"enforcement": "of"}, "override ConfigMap")
    for before in (Enforcement().update(config(Mode.OFF), None, config(Mode.OBSERVE)), OFF):
        after = before.update(config(Mode.OFF), None, typo)
        assert after.mode is before.mode
        assert after.problem.startswith("override ConfigMap: enforcement: 'of' must be one of")


def test_both_configmaps_can_request_a_cleanup() -> None:
    """Continue the cleanup of a release if an override appears or the ConfigMap is deleted."""
    override = config(Mode.ENFORCE)
    assert OFF.update(config(Mode.ENFORCE), None, config(Mode.OFF, cleanup=True)).cleanup
    cleaning = OFF.update(config(Mode.OFF, cleanup=True), None, override)
    assert cleaning.cleanup
    assert cleaning.update(None, None, override).cleanup
    assert not cleaning.update(config(Mode.ENFORCE), None, override).cleanup


def test_only_the_value_true_requests_a_cleanup() -> None:
    """Read every other value as false."""
    assert parse_enforcement_config({"enforcement": "Off", "cleanup": "true"}).cleanup
    assert not parse_enforcement_config({"enforcement": "Off", "cleanup": "yes"}).cleanup


@pytest.mark.parametrize("text", ["", "none", "stop", 3])
@pytest.mark.parametrize("mode", [Mode.OFF, Mode.ENFORCE, None])
def test_an_invalid_mode_changes_nothing_and_is_reported(text: object, mode: Mode | None) -> None:
    """Keep the previous mode, also when read again. Name the valid modes in the message."""
    before = EnforcementSetting(mode)
    word = parse_setting("ConfigMap: enforcement", text)
    for _ in range(2):
        before = word.or_previous(before)
        assert before.mode is mode
        assert "Enforce, Observe, Off" in before.problem


def test_a_valid_mode_takes_effect_after_any_earlier_mode() -> None:
    """Use the mode of the release after the node label is removed."""
    before = EnforcementSetting(Mode.OFF, "what was wrong once")
    assert EnforcementSetting(Mode.OBSERVE).or_previous(before) == EnforcementSetting(Mode.OBSERVE)
    assert EnforcementSetting().or_previous(before) == EnforcementSetting()
