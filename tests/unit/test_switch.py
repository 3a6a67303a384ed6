"""The kill switch."""

from __future__ import annotations

import pytest

from tokenbucket.core.policy import Mode
from tokenbucket.core.switch import MISSING, Switch, Word, parse_switch, parse_word


@pytest.mark.parametrize("word", ["Off", "off", "OFF"])
def test_the_switch_is_understood_in_any_case(word: str) -> None:
    """Whoever needs it is in a hurry."""
    assert parse_switch({"enforcement": word}) == Switch(Word(Mode.OFF))


@pytest.mark.parametrize("word", [parse_switch({}).word, MISSING], ids=["empty", "missing"])
def test_a_switch_that_says_nothing_changes_nothing_and_is_said(word: Word) -> None:
    """What was switched off in an emergency stays off when somebody deletes the switch."""
    after = word.after(Word(Mode.OFF))
    assert after.mode is Mode.OFF
    assert after.problem


def test_cleanup_is_asked_for_in_so_many_words() -> None:
    """Anything but true is false."""
    assert parse_switch({"enforcement": "Off", "cleanup": "true"}).cleanup
    assert not parse_switch({"enforcement": "Off", "cleanup": "yes"}).cleanup


@pytest.mark.parametrize("text", ["", "none", "stop", 3])
@pytest.mark.parametrize("mode", [Mode.OFF, Mode.ENFORCE, None])
def test_a_word_that_is_not_understood_changes_nothing_and_is_said(text: object, mode: Mode | None) -> None:
    """Whatever held before holds, read again too; the message names the words that are understood."""
    before = Word(mode)
    word = parse_word("ConfigMap: enforcement", text)
    for _ in range(2):
        before = word.after(before)
        assert before.mode is mode
        assert "Enforce, Observe, Off" in before.problem


def test_a_word_that_is_understood_holds_whatever_was_before() -> None:
    """Nothing, too: a label that is taken off leaves the node to the release."""
    before = Word(Mode.OFF, "what was wrong once")
    assert Word(Mode.OBSERVE).after(before) == Word(Mode.OBSERVE)
    assert Word().after(before) == Word()
