"""The tables of the benchmarks, which the paired mode reads."""

from __future__ import annotations

import pytest
from bench.figures import below, figures_of, must_be, print_table


def test_a_printed_table_survives_parsing(capsys: pytest.CaptureFixture[str]) -> None:
    """Read names with numbers, units, and a name that two tables share."""
    for rates in ([31.25, 30.0, 32.0], [62.5, 60.0, 64.0]):
        rows = (
            below("new rate, rename to the last of 500 slots", rates, 100, "ms"),
            must_be("  actions of the new agent", [0, 0], 0, ""),
        )
        print_table("One node, 500 pods", rows)
    assert figures_of(capsys.readouterr().out) == {
        "new rate, rename to the last of 500 slots": 31.2,
        "actions of the new agent": 0,
        "new rate, rename to the last of 500 slots (2)": 62.5,
        "actions of the new agent (2)": 0,
    }
