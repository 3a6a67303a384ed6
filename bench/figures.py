"""Tables of figures, each with its target: print and read them."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ROW = re.compile(r" {2,}(\S.*?) {2,}(-?\d+(?:\.\d+)?)(?= |$)")
"""A line of a table: its name and its first figure, after at least two spaces."""


@dataclass(frozen=True)
class Figure:
    """One line of a table: samples of one unit, and their target."""

    name: str
    samples: Sequence[float]
    unit: str
    target: str = ""
    met: bool | None = None
    """Whether the target is met; ``None`` if there is none."""


def below(name: str, samples: Sequence[float], limit: float, unit: str) -> Figure:
    """Return a figure whose median must be below a limit."""
    return Figure(name, samples, unit, f"< {limit:g} {unit}", statistics.median(samples) < limit)


def at_most(name: str, samples: Sequence[float], limit: float, unit: str) -> Figure:
    """Return a figure of which no sample may exceed a limit."""
    return Figure(name, samples, unit, f"<= {limit:.4g} {unit}".rstrip(), max(samples) <= limit)


def must_be(name: str, samples: Sequence[float], value: float, unit: str) -> Figure:
    """Return a figure of which every sample must have one value."""
    return Figure(name, samples, unit, f"= {value:g}", set(samples) == {value})


def verdict(*, met: bool | None) -> str:
    """Return the result as one word."""
    return "" if met is None else "ok" if met else "MISSED"


def print_table(title: str, figures: Iterable[Figure]) -> bool:
    """Print figures under a title. Return whether all targets are met."""
    print(f"\n{title}\n  {'':46}{'median':>10} {'least':>10} {'most':>10} {'unit':6}{'n':>4}  target")
    all_met = True
    for each in figures:
        numbers = (statistics.median(each.samples), min(each.samples), max(each.samples))
        values = " ".join(f"{short(number):>10}" for number in numbers)
        end = f"{each.target} {verdict(met=each.met)}".rstrip()
        print(f"  {each.name:46}{values} {each.unit:6}{len(each.samples):4}  {end}".rstrip())
        all_met = all_met and each.met is not False
    return all_met


def short(number: float) -> str:
    """Return a number with three significant digits, or as a whole number."""
    return f"{number:.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"


def figures_of(output: str) -> dict[str, float]:
    """Return the figures of the tables in the output of a benchmark, by name.

    If several tables have the same name, its number follows, as in "cold start (2)".
    """
    found: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for match in filter(None, map(_ROW.match, output.splitlines())):
        seen[match[1]] += 1
        name = match[1] if seen[match[1]] == 1 else f"{match[1]} ({seen[match[1]]})"
        found[name] = float(match[2])
    return found
