"""The lists of tests that run on other kernels, compared with the existing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.inside import KEPT, LEFT_OUT, SHORT

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [*LEFT_OUT, *KEPT, *SHORT])
def test_each_listed_test_exists(name: str) -> None:
    """Fail here instead of on the slow rungs."""
    path, _, test = name.partition("::")
    assert (ROOT / path).exists()
    assert not test or f"def {test.partition('[')[0]}" in (ROOT / path).read_text()
