"""Every reason has a test in which the agent finds it; the tests of explain cover what users see of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokenbucket.core.planning.reasons import Reason

TESTS = Path(__file__).parents[2]
CREATING = "\n".join(
    path.read_text()
    for folder in ("netns", "unit/agent", "unit/core/planning")
    for path in sorted((TESTS / folder).glob("*.py"))
)
"""The tests in which a kernel or the planner causes reasons."""


@pytest.mark.parametrize("reason", Reason)
def test_a_test_creates_the_reason(reason: Reason) -> None:
    assert re.search(rf'Reason\.{reason.name}\b|"{reason.value}[":]', CREATING)
