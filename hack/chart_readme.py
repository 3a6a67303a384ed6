"""Write the table of values in the chart's README.md and docs/reference/helm-values.md, from values.yaml.

A comment that starts with ``# --`` explains the key below it and continues in the next
comment lines, as in helm-docs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "tokenbucket"
README = CHART / "README.md"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "helm-values.md"
HEAD = """\
<!-- Written by 'make generate'. -->

# Helm values

The values of the chart in `charts/tokenbucket`, with their defaults.
Helm validates your values with `charts/tokenbucket/values.schema.json`.

"""
BEGIN, END = "<!-- values: written by 'make generate' -->\n", "<!-- end of values -->"
_MARK = "# -- "
_TYPES = {dict: "object", list: "list", str: "string", bool: "bool", int: "int", float: "float"}


@dataclass(frozen=True, slots=True)
class Row:
    """One Helm value."""

    key: str
    default: Any
    explanation: str

    def __str__(self) -> str:
        default = json.dumps(self.default, separators=(", ", ": "))
        return f"| `{self.key}` | {_TYPES[type(self.default)]} | `{default}` | {self.explanation} |"


def rows(text: str) -> list[Row]:
    """Return every explained value, in the order of the file."""
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_rows(root, "", text.splitlines()))


def _rows(mapping: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Row]:
    for key, value in mapping.value:
        name = f"{prefix}{key.value}"
        explanation = _explanation(lines, key.start_mark.line)
        if explanation:
            yield Row(name, _construct(value), explanation)
        elif isinstance(value, yaml.MappingNode):
            yield from _rows(value, f"{name}.", lines)
        else:
            raise SystemExit(f"values.yaml:{key.start_mark.line + 1}: {name}: no comment '{_MARK}'")


def _construct(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _explanation(lines: list[str], line: int) -> str:
    """Return the comment that ends above a line, or nothing if it does not start with the mark."""
    above: list[str] = []
    while line and (text := lines[line := line - 1].strip()).startswith("#"):
        if text.startswith(_MARK):
            return " ".join([text.removeprefix(_MARK), *reversed(above)])
        above.append(text.removeprefix("#").strip())
    return ""


def table(text: str) -> str:
    """Return the table in Markdown."""
    head = ["| value | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *map(str, rows(text))]) + "\n"


def readme(current: str, values: str) -> str:
    """Return the README with its table replaced."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def main() -> None:
    values = (CHART / "values.yaml").read_text()
    README.write_text(readme(README.read_text(), values))
    PAGE.write_text(HEAD + table(values))


if __name__ == "__main__":
    main()
