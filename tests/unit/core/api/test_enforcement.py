"""The kill switch."""

from __future__ import annotations

import pytest

from tokenbucket.core.api.enforcement import (
    MISSING,
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


@pytest.mark.parametrize("word", [parse_enforcement_config({}).word, MISSING], ids=["empty", "missing"])
def test_a_switch_that_says_nothing_changes_nothing_and_is_said(word: EnforcementSetting) -> None:
    """What was switched off in an emergency stays off when somebody deletes the switch."""
    after = word.after(EnforcementSetting(Mode.OFF))
    assert after.mode is Mode.OFF
    assert after.problem


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
        before = word.after(before)
        assert before.mode is mode
        assert "Enforce, Observe, Off" in before.problem


def test_a_word_that_is_understood_holds_whatever_was_before() -> None:
    """Nothing, too: a label that is taken off leaves the node to the release."""
    before = EnforcementSetting(Mode.OFF, "what was wrong once")
    assert EnforcementSetting(Mode.OBSERVE).after(before) == EnforcementSetting(Mode.OBSERVE)
    assert EnforcementSetting().after(before) == EnforcementSetting()
