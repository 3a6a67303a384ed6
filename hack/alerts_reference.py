"""Write the facts of each alert into docs/reference/alerts.md, from the chart's alerts.

The page keeps its own text, such as the action for each alert, around these blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "alerts.md"
ALERTS = ROOT / "charts" / "tokenbucket" / "files" / "alerts.yaml"
END = "<!-- end of the alert -->"


def alerts(text: str) -> Iterator[dict[str, Any]]:
    """Yield the rules of every group."""
    for group in yaml.safe_load(text)["groups"]:
        yield from group["rules"]


def block(alert: dict[str, Any]) -> str:
    """Return the facts of one alert in Markdown."""
    facts, duration = alert["annotations"], alert["for"]
    summary = re.sub(r"{{ *(?:\$labels\.|\$)(\w+)[^}]*}}", r"*\1*", facts["summary"])
    return (
        f"Severity `{alert['labels']['severity']}`, after {duration}. {summary} {facts['description']}\n\n"
        f"```promql\n{alert['expr'].strip()}\n```"
    )


def page(current: str, text: str) -> str:
    """Return the page with the block of each alert replaced."""
    for alert in alerts(text):
        begin = f"<!-- {alert['alert']}: written by 'make generate' -->"
        before, found, rest = current.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE}: no line {begin}; add a section for the alert")
        current = f"{before}{begin}\n\n{block(alert)}\n\n{END}{rest.partition(END)[2]}"
    return current


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), ALERTS.read_text()))


if __name__ == "__main__":
    main()
