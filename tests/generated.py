"""The number of generated inputs of a test, which follows the profile of hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def inputs(percent: int, **more: Any) -> settings:
    """Return settings for so many inputs, in percent of the profile. ``make fuzz`` uses 30 times as many."""
    profile = settings.default
    assert profile
    return settings(max_examples=max(1, profile.max_examples * percent // 100), deadline=None, **more)
