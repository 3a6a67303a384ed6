"""Plots of docs/tasks/choose-rate-and-burst.md, from the tables of docs/benchmarks/limiters.md."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
TABLES = DOCS / "benchmarks" / "limiters.md"
PLOTS = DOCS / "benchmarks" / "plots"
DELAY, DROP = "#1b6ca8", "#bc4c00"

Table = dict[str, dict[str, float]]
"""By row and column: the median."""


def table(heading: str) -> Table:
    """Return the first table below a heading. Rows with two names have both."""
    _, _, below = TABLES.read_text().partition(f"\n## {heading}\n")
    lines = re.findall(r"^\|(.+)\|$", below.partition("\n## ")[0], re.MULTILINE)
    head, _, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    names = 2 if head[1] == "congestion control" else 1
    columns, found = _complete(head[names:]), {}
    for row in rows:
        if row[: len(head)] == head or set("".join(row)) <= {"-"}:
            break
        cells = (float(cell.split()[0]) for cell in row[names:])
        found[", ".join(row[:names])] = dict(zip(columns, cells, strict=True))
    return found


def _complete(columns: list[str]) -> list[str]:
    """Return names that differ: a column such as "10 ms" belongs to the number of flows before it."""
    flows, found = "", []
    for column in columns:
        flows = column if column.endswith(("flow", "flows")) else flows
        found.append(column if column in (flows, "") or not flows else f"{flows}, {column}")
    return found


def bursts() -> None:
    """Draw the goodput of Drop by its burst."""
    values = table("Bucket depth for Drop")
    rows = {"cubic, 1 flow": "-", "bbr, 1 flow": "--", "reno, 1 flow": ":", "cubic, 1 flow, RTT 5 ms": "-."}
    figure, panel = plt.subplots(figsize=(6.4, 3.4))
    for name, style in rows.items():
        depths = [int(column.split()[0]) for column in values[name]]
        color = "#8a8a8a" if "RTT" in name else DROP
        panel.plot(
            depths, list(values[name].values()), style, color=color, marker="o", markersize=4, label=name
        )
    panel.set_xscale("log")
    panel.set_xticks(depths, [str(depth) for depth in depths])
    panel.minorticks_off()
    panel.set(xlabel="burst, ms of the rate", ylabel="goodput, % of the rate", ylim=(0, 105))
    panel.set_title("Drop at 10 Mbit/s: TCP goodput by burst", fontsize=11)
    _save(figure, panel, "drop-bursts.svg")


def rates() -> None:
    """Draw the goodput of Delay by its rate."""
    values = table("Delay from 256 kbit/s to 100 Mbit/s")
    names = list(dict.fromkeys(name.partition(",")[0] for name in values))
    figure, panel = plt.subplots(figsize=(6.4, 3.4))
    for control, style in {"cubic": "-", "bbr": "--", "reno": ":"}.items():
        goodput = [values[f"{name}, {control}"]["1 flow"] for name in names]
        panel.plot(names, goodput, style, color=DELAY, marker="o", markersize=4, label=f"{control}, 1 flow")
    panel.set(xlabel="rate", ylabel="goodput, % of the rate", ylim=(0, 125))
    panel.set_title("Delay: TCP goodput by rate", fontsize=11)
    _save(figure, panel, "delay-rates.svg")


def actions() -> None:
    """Draw what Delay and Drop cost a request beside one bulk flow."""
    values = table("Latency beside bulk traffic, ms")
    columns = {"p99": "64 B, p99", "p99.9": "64 B, p99.9", "4 KiB, p50": "4 KiB, median"}
    figure, panel = plt.subplots(figsize=(6.4, 3.4))
    for offset, (name, color) in enumerate({"Delay, Fifo": DELAY, "Drop": DROP}.items()):
        places = [row + 0.38 * offset for row in range(len(columns))]
        heights = [values[name][column] for column in columns]
        bars = panel.bar(places, heights, 0.36, color=color, label=name)
        panel.bar_label(bars, fmt="%.3g", fontsize=9)
    panel.set_yscale("log")
    panel.set_xticks([row + 0.19 for row in range(len(columns))], list(columns.values()))
    panel.set(ylabel="ms", ylim=(0.02, 200))
    panel.set_title("Requests beside one TCP flow at 100 Mbit/s", fontsize=11)
    _save(figure, panel, "action-latency.svg")


def _save(figure: plt.Figure, panel: plt.Axes, name: str) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#e4e4e4")
    panel.set_axisbelow(True)
    panel.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    figure.savefig(PLOTS / name, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "tokenbucket", "svg.fonttype": "none", "font.family": "sans-serif"})
    bursts()
    rates()
    actions()


if __name__ == "__main__":
    main()
