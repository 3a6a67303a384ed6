"""The kill switch."""

from __future__ import annotations

import pytest

from tokenbucket.core.policy import Mode
from tokenbucket.core.switch import Switch, parse_switch


@pytest.mark.parametrize("word", ["Off", "off", "OFF"])
def test_the_switch_is_understood_in_any_case(word: str) -> None:
    """Whoever needs it is in a hurry."""
    assert parse_switch({"enforcement": word}) == Switch(Mode.OFF)


def test_an_empty_switch_enforces() -> None:
    """As one that is not there."""
    assert parse_switch({}) == Switch(Mode.ENFORCE, cleanup=False)


def test_cleanup_is_asked_for_in_so_many_words() -> None:
    """Anything but true is false."""
    assert parse_switch({"enforcement": "Off", "cleanup": "true"}).cleanup
    assert not parse_switch({"enforcement": "Off", "cleanup": "yes"}).cleanup


@pytest.mark.parametrize("word", ["", "none", "stop", None, 3])
def test_a_word_that_is_not_understood_changes_nothing_and_is_said(word: object) -> None:
    """Limits stay in force, and the message names the words that are understood."""
    switch = parse_switch({"enforcement": word})
    assert switch.enforcement is Mode.ENFORCE
    assert "Enforce, Observe, Off" in switch.problem
