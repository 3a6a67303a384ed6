"""Check the lists of tests that run on other kernels against the tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.inside import KEPT, LEFT_OUT, SHORT

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [*LEFT_OUT, *KEPT, *SHORT])
def test_each_listed_test_exists(name: str) -> None:
    """The run on other kernels ends at once otherwise, and only the slow rungs would show it."""
    path, _, test = name.partition("::")
    assert (ROOT / path).exists()
    assert not test or f"def {test.partition('[')[0]}" in (ROOT / path).read_text()
