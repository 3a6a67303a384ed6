"""Quantities and durations, in and out."""

from __future__ import annotations

import contextlib
import doctest
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket import units


def test_the_examples_in_the_documentation_are_true() -> None:
    """Docstrings are read by people."""
    assert doctest.testmod(units).failed == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        (5, 5),
        ("1.5k", 1500),
        ("0.5M", 500_000),
        (".5M", 500_000),
        ("2.", 2),
        ("1e6", 10**6),
        ("1E6", 10**6),
        ("25e-1", Fraction(5, 2)),
        ("3Ki", 3072),
        ("1Gi", 2**30),
        ("+7M", 7_000_000),
        ("-7M", -7_000_000),
        ("1500m", Fraction(3, 2)),
    ],
)
def test_quantities_are_those_of_kubernetes(text: object, number: object) -> None:
    """Exactly, without floating point."""
    assert units.quantity(text) == number


@pytest.mark.parametrize(
    ("text", "ns"), [("25ms", 25_000_000), ("1m30s", 90 * 10**9), ("1.5us", 1500), ("0s", 0)]
)
def test_durations_are_those_of_go(text: str, ns: int) -> None:
    """In nanoseconds."""
    assert units.duration_ns(text) == ns


@given(st.text() | st.integers() | st.floats() | st.none() | st.lists(st.integers()) | st.binary())
def test_wrong_input_is_a_value_error_and_nothing_else(value: object) -> None:
    """With a message."""
    for read in (units.quantity, units.duration_ns):
        with contextlib.suppress(ValueError):
            read(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1024, "1KiB"),
        (1000, "1kB"),
        (1500, "1.5kB"),
        (2**30, "1GiB"),
        (-1500, "-1.5kB"),
    ],
)
def test_sizes_are_written_in_whole_binary_units_or_decimal_ones(size: int, text: str) -> None:
    """A burst reads as it was declared."""
    assert units.format_bytes(size) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(8000, "8kbit/s"), (10**12, "1Tbit/s"), (1_234_567, "1.235Mbit/s")]
)
def test_rates_have_four_significant_digits(rate: int, text: str) -> None:
    """Enough to tell them apart."""
    assert units.format_bit_rate(rate) == text
