"""Parsing and formatting of quantities and durations."""

from __future__ import annotations

import contextlib
import doctest
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket import units


def test_the_examples_in_docstrings_are_correct() -> None:
    """Run them as doctests."""
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
def test_quantities_are_parsed_as_in_kubernetes(text: object, number: object) -> None:
    """Compute exactly, without floating point."""
    assert units.quantity(text) == number


@pytest.mark.parametrize(
    ("text", "ns"), [("25ms", 25_000_000), ("1m30s", 90 * 10**9), ("1.5us", 1500), ("0s", 0)]
)
def test_durations_are_parsed_as_in_go(text: str, ns: int) -> None:
    """Return nanoseconds."""
    assert units.duration_ns(text) == ns


@given(st.text() | st.integers() | st.floats() | st.none() | st.lists(st.integers()) | st.binary())
def test_invalid_input_raises_only_value_error(value: object) -> None:
    """Provide a message."""
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
def test_sizes_are_formatted_in_whole_binary_or_decimal_units(size: int, text: str) -> None:
    """Show a burst as declared."""
    assert units.format_bytes(size) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(8000, "8kbit/s"), (10**12, "1Tbit/s"), (1_234_567, "1.235Mbit/s")]
)
def test_rates_have_four_significant_digits(rate: int, text: str) -> None:
    """Distinguish similar rates."""
    assert units.format_bit_rate(rate) == text


@given(st.integers(0, 2**33), st.floats(0, 0.999))
def test_a_formatted_time_is_parsed_without_its_fraction(seconds: int, fraction: float) -> None:
    """Format the times of reports, events and conditions."""
    assert units.unix_time(units.rfc3339(seconds + fraction)) == seconds
