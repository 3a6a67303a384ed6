"""Print results as a table, JSON or YAML."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from typing import Any

import yaml


class Format(enum.StrEnum):
    """Values of ``-o``."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def structured(value: Any, form: Format) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return a value as JSON or YAML text."""
    if form is Format.JSON:
        return json.dumps(value, indent=2)
    return yaml.safe_dump(value, sort_keys=False).rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with left-aligned columns, three spaces apart, in the format of kubectl."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
