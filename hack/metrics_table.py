"""Write the tables of docs/reference/metrics.md, from the metrics of the code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenbucket.agent.metrics import OF_THE_AGENT, OF_THE_PODS
from tokenbucket.agent.policy_metrics import OF_THE_POLICIES
from tokenbucket.controller.metrics import OF_THE_CONTROLLER
from tokenbucket.core.limits.stats import EXPOSED
from tokenbucket.metrics import Measure

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
TABLES = {
    "pods": OF_THE_PODS,
    "policies": OF_THE_POLICIES,
    "agent": OF_THE_AGENT,
    "controller": OF_THE_CONTROLLER,
}
END = "<!-- end of the table -->"


def row(measure: Measure[Any]) -> str:
    """Return one line of a table."""
    labels = ", ".join(f"`{label}`" for label in measure.labels) or "-"
    return f"| `{measure.name}` | {measure.kind} | {labels} | {measure.meaning} |"


def table(measures: Iterable[Measure[Any]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *map(row, measures)])


def counters() -> str:
    """Return the table of the counters of a limit."""
    names = ((each.meaning, _code(each.key), _code(each.metric_name)) for each in EXPOSED)
    rows = (f"| {meaning} | {key} | {metric} |" for meaning, key, metric in names)
    return "\n".join(["| counter | key in JSON and YAML | metric |", "|---|---|---|", *rows])


def _code(name: str) -> str:
    return f"`{name}`" if name else "-"


def page(current: str) -> str:
    """Return the page with its tables replaced."""
    tables = {name: table(measures) for name, measures in TABLES.items()} | {"counters": counters()}
    for name, text in tables.items():
        begin = f"<!-- {name}: written by 'make generate' -->"
        before, found, rest = current.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE}: no line {begin}")
        _, _, after = rest.partition(END)
        current = f"{before}{begin}\n\n{text}\n\n{END}{after}"
    return current


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
