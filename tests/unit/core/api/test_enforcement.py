"""The enforcement mode of a node."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.enforcement import (
    Enforcement,
    EnforcementConfig,
    EnforcementSetting,
    Place,
    parse_enforcement_config,
    parse_setting,
)
from tokenbucket.core.api.policy import Mode


@pytest.mark.parametrize("word", ["Off", "off", "OFF"])
def test_the_switch_is_understood_in_any_case(word: str) -> None:
    """Whoever needs it is in a hurry."""
    assert parse_enforcement_config({"enforcement": word}) == EnforcementConfig(EnforcementSetting(Mode.OFF))


OFF = Enforcement(EnforcementSetting(Mode.OFF))


@pytest.mark.parametrize("config", [parse_enforcement_config({}), None], ids=["empty", "missing"])
def test_a_configmap_that_sets_no_mode_changes_nothing_and_is_reported(
    config: EnforcementConfig | None,
) -> None:
    """What was switched off in an emergency stays off when somebody deletes the ConfigMap."""
    after = OFF.update(config, None)
    assert after.mode is Mode.OFF
    assert after.problem


def test_a_cleanup_goes_on_without_its_configmap() -> None:
    """Which goes with the release, while agents may still run."""
    cleaning = OFF.update(EnforcementConfig(EnforcementSetting(Mode.OFF), cleanup=True), None)
    after = cleaning.update(None, None)
    assert (after.cleanup, after.problem, after.mode) == (True, "", Mode.OFF)


def test_the_label_of_the_node_comes_before_the_configmap() -> None:
    """As long as it is there, and known."""
    observed = OFF.update(EnforcementConfig(EnforcementSetting(Mode.OFF)), EnforcementSetting(Mode.OBSERVE))
    assert (observed.mode, observed.decided_by) == (Mode.OBSERVE, Place.LABEL)
    config = EnforcementConfig(EnforcementSetting(Mode.OFF))
    assert observed.update(config, None).mode is Mode.OBSERVE
    without = observed.update(config, EnforcementSetting())
    assert (without.mode, without.decided_by) == (Mode.OFF, Place.RELEASE)


def config(mode: Mode, *, cleanup: bool = False) -> EnforcementConfig:
    return EnforcementConfig(EnforcementSetting(mode), cleanup)


@pytest.mark.parametrize("release", [config(Mode.ENFORCE), config(Mode.OBSERVE), None])
def test_the_override_comes_before_the_configmap_and_after_the_label(
    release: EnforcementConfig | None,
) -> None:
    """Whatever a tool makes of the ConfigMap meanwhile. When the override goes, the release decides."""
    before = Enforcement().update(config(Mode.OBSERVE), None)
    overridden = before.update(release, None, config(Mode.OFF))
    assert (overridden.mode, overridden.decided_by) == (Mode.OFF, Place.OVERRIDE)
    assert "override ConfigMap: sets Off" in overridden.notice
    labeled = overridden.update(release, EnforcementSetting(Mode.ENFORCE), config(Mode.OFF))
    assert (labeled.mode, labeled.decided_by) == (Mode.ENFORCE, Place.LABEL)
    without = overridden.update(release, None)
    assert (without.mode, without.notice) == (release.setting.mode if release else Mode.OBSERVE, "")


def test_an_override_that_is_not_understood_keeps_the_mode_and_is_reported() -> None:
    """The mode of a valid override stays; without one, the mode of the release."""
    typo = parse_enforcement_config({"enforcement": "of"}, "override ConfigMap")
    for before in (Enforcement().update(config(Mode.OFF), None, config(Mode.OBSERVE)), OFF):
        after = before.update(config(Mode.OFF), None, typo)
        assert after.mode is before.mode
        assert after.problem.startswith("override ConfigMap: enforcement: 'of' must be one of")


def test_both_configmaps_can_ask_for_a_cleanup() -> None:
    """A cleanup of the release does not end at an override, nor when the ConfigMap goes with the release."""
    override = config(Mode.ENFORCE)
    assert OFF.update(config(Mode.ENFORCE), None, config(Mode.OFF, cleanup=True)).cleanup
    cleaning = OFF.update(config(Mode.OFF, cleanup=True), None, override)
    assert cleaning.cleanup
    assert cleaning.update(None, None, override).cleanup
    assert not cleaning.update(config(Mode.ENFORCE), None, override).cleanup


def test_cleanup_is_asked_for_in_so_many_words() -> None:
    """Anything but true is false."""
    assert parse_enforcement_config({"enforcement": "Off", "cleanup": "true"}).cleanup
    assert not parse_enforcement_config({"enforcement": "Off", "cleanup": "yes"}).cleanup


@pytest.mark.parametrize("text", ["", "none", "stop", 3])
@pytest.mark.parametrize("mode", [Mode.OFF, Mode.ENFORCE, None])
def test_a_word_that_is_not_understood_changes_nothing_and_is_said(text: object, mode: Mode | None) -> None:
    """Whatever held before holds, read again too; the message names the words that are understood."""
    before = EnforcementSetting(mode)
    word = parse_setting("ConfigMap: enforcement", text)
    for _ in range(2):
        before = word.or_previous(before)
        assert before.mode is mode
        assert "Enforce, Observe, Off" in before.problem


def test_a_word_that_is_understood_holds_whatever_was_before() -> None:
    """Nothing, too: a label that is taken off leaves the node to the release."""
    before = EnforcementSetting(Mode.OFF, "what was wrong once")
    assert EnforcementSetting(Mode.OBSERVE).or_previous(before) == EnforcementSetting(Mode.OBSERVE)
    assert EnforcementSetting().or_previous(before) == EnforcementSetting()
