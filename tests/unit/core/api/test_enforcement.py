"""The enforcement mode of a node."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.enforcement import (
    Enforcement,
    EnforcementConfig,
    EnforcementSetting,
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
    assert (observed.mode, observed.decided_by) == (Mode.OBSERVE, "the node's label")
    config = EnforcementConfig(EnforcementSetting(Mode.OFF))
    assert observed.update(config, None).mode is Mode.OBSERVE
    without = observed.update(config, EnforcementSetting())
    assert (without.mode, without.decided_by) == (Mode.OFF, "the ConfigMap")


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
