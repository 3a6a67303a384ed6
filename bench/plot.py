"""Plots of what ``bench/peers.py --results`` wrote: ``make bench-plots RESULTS=file``."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

OURS, PEERS = "#1b6ca8", "#b0b0b0"
_OURS = {"Delay", "Delay, ECN", "Delay, Fifo", "Delay, Fifo, ECN", "Drop", "sends: Delay"}
_CASES = {
    "4 KiB, pause 1 ms, beside 1 bulk flow": "4 KiB beside\n1 flow",
    "4 KiB, pause 1 ms, beside 8 bulk flows": "4 KiB beside\n8 flows",
    "4 KiB, pause 20 ms, beside 8 bulk flows": "4 KiB each 20 ms\nbeside 8 flows",
    "1000 sparse flows beside 8 flows": "1,000 sparse flows\nbeside 8 flows",
}

Values = dict[str, dict[str, list[float]]]
"""By limiter and cell."""


def read(file: Path) -> dict[str, Values]:
    """Return samples by the measured quantity."""
    found: dict[str, Values] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for each in json.loads(file.read_text()):
        found[each["what"]][each["limiter"]][each["cell"]].append(each["value"])
    return found


def bars(
    values: Values, title: str, file: Path, *, without: frozenset[str] = frozenset(), log: bool = False
) -> None:
    """Draw one panel per cell with one bar per limiter: the median, with minimum and maximum."""
    names = [name for name in values if name not in without]
    cells = list(dict.fromkeys(cell for name in names for cell in values[name]))
    figure, panels = plt.subplots(
        1, len(cells), figsize=(1.5 + 2.6 * len(cells), 0.9 + 0.34 * len(names)), sharey=True, squeeze=False
    )
    for panel, cell in zip(panels[0], cells, strict=True):
        for row, name in enumerate(names):
            numbers = values[name].get(cell)
            if not numbers:
                continue
            middle = statistics.median(numbers)
            panel.barh(row, middle, color=OURS if name in _OURS else PEERS)
            panel.hlines(row, min(numbers), max(numbers), color="black", linewidth=1)
            panel.annotate(f" {middle:.3g}", (max(numbers), row), va="center", fontsize=8)
        panel.set_title(cell, fontsize=9)
        panel.set_yticks(range(len(names)), names, fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
        panel.margins(x=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if log:
            panel.set_xscale("log")
    panels[0][0].invert_yaxis()
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(file, dpi=80, metadata={"Software": None})
    plt.close(figure)


def fairness(found: dict[str, Values], file: Path) -> None:
    """Draw the median times of ``--study fairness``, of the limiters that have all of them."""
    values = found["p50, ms"]
    most = max(map(len, values.values()))
    names = [name for name in values if len(values[name]) == most]
    figure, panel = plt.subplots(figsize=(7.2, 3.4))
    for offset, name in enumerate(names):
        places = [row + 0.28 * offset for row in range(len(_CASES))]
        heights = [statistics.median(values[name][cell]) for cell in _CASES]
        color = OURS if name == "Delay" else PEERS if name not in _OURS else "#7fb2d9"
        drawn = panel.bar(places, heights, 0.26, color=color, label=name)
        panel.bar_label(drawn, fmt="%.2g", fontsize=9)
    panel.set_yscale("log")
    panel.set_xticks([row + 0.28 for row in range(len(_CASES))], list(_CASES.values()))
    panel.set(ylabel="ms", ylim=(0.01, 300))
    panel.set_title("Time of requests and packets beside bulk TCP at 100 Mbit/s, median", fontsize=11)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=9, frameon=False, ncols=len(names), loc="upper left")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Write the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "tokenbucket", "svg.fonttype": "none", "font.family": "sans-serif"})
    found = read(given.results)
    given.folder.mkdir(exist_ok=True, parents=True)
    if found["lost, %"]:
        fairness(found, given.folder / "fairness.svg")
        return
    goodput = found["goodput, % of the rate"]
    title = "TCP goodput, percent of the rate"
    bars(goodput, title, given.folder / "goodput.png", without=frozenset({"none"}))
    title = "Latency of a small request beside bulk traffic, 99th percentile, ms"
    bars(found["p99, ms"], title, given.folder / "latency-p99.png", log=True)


if __name__ == "__main__":
    main()
