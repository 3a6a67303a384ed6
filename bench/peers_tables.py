"""The tables of docs/benchmarks/limiters.md, of what ``bench/peers.py --results`` wrote.

``make bench-plots RESULTS=file`` prints them, in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from peers import COMPARED, UDP, short
from plot import Values, read

_BESIDE = ("beside 1 bulk flow", "beside 64 bulk flows")
_LATENCIES = ("p50", "p99", "p99.9", "most", "4 KiB p50", "connection p50")

Column = tuple[str, str, str]
"""Its head, what was measured, and the cell."""


def markdown(found: dict[str, Values], columns: Sequence[Column]) -> str:
    """Return a row for each complete limiter: the median, with minimum and maximum."""
    heads = ["limiter", *(head for head, _, _ in columns)]
    lines = [heads, ["---"] * len(heads)]
    for name in found[columns[0][1]]:
        cells = [found[what][name].get(cell, []) for _, what, cell in columns]
        if all(cells):
            lines.append([name, *map(figure, cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(numbers: Sequence[float]) -> str:
    """Such as "95.5 (95.1-95.7)"."""
    return f"{short(statistics.median(numbers))} ({short(min(numbers))}-{short(max(numbers))})"


def fairness(found: dict[str, Values]) -> None:
    """Print the table of ``--study fairness``: a row for each measurement, a column for each limiter."""
    limiters = list(found["goodput, % of the rate"])
    lines = [["", *limiters], ["---"] * (len(limiters) + 1)]
    for what, values in found.items():
        cells = dict.fromkeys(cell for by_cell in values.values() for cell in by_cell)
        lines.append([f"**{what}**", *[""] * len(limiters)])
        for cell in cells:
            numbers = [values[name].get(cell, []) for name in limiters]
            if any(map(any, numbers)):  # a row of zeros shows nothing
                lines.append([cell, *(figure(each) if each else "" for each in numbers)])
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    found = read(parser.parse_args().results)
    if found["lost, %"]:
        fairness(found)
        return
    tcp = [str(cell) for cell in COMPARED]
    tables: dict[str, list[Column]] = {
        what: [(cell, what, cell) for cell in tcp]
        for what in ("goodput, % of the rate", "retransmissions", "fairness (Jain)")
    }
    for beside in _BESIDE:
        tables[f"latency {beside}, ms"] = [(name, f"{name}, ms", beside) for name in _LATENCIES]
    tables["UDP, % of the rate"] = [(str(cell), "UDP, % of the rate", str(cell)) for cell in UDP]
    for what in ("x rate", "packets too many"):
        tables[f"flood, {what}"] = [
            (f"first {time}", f"first {time}, {what}", "flood of UDP") for time in ("100 ms", "second")
        ]
    far = (
        "64-byte packets far from the limit, thousand/s",
        "64-byte packets, thousand/s",
        "far from the limit",
    )
    tables["capacity"] = [far]
    measured = {title: columns for title, columns in tables.items() if columns[0][1] in found}
    for title, columns in measured.items():
        print(f"\n{title}\n\n{markdown(found, columns)}")


if __name__ == "__main__":
    main()
