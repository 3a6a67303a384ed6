"""Checks of helm commands and of Helm values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.documentation.blocks import ROOT
from tests.documentation.kubectl import Arguments, parsed, words_of
from tests.documentation.schema import problems

SCHEMA = json.loads((ROOT / "charts/tokenbucket/values.schema.json").read_text())
_VERBS = {"install", "upgrade", "template", "uninstall", "rollback", "status", "test", "list"}
_VALUES = {
    "--namespace",
    "-n",
    "--set",
    "--set-string",
    "--values",
    "-f",
    "--kube-version",
    "--version",
    "--timeout",
}
_SWITCHES = words_of("""
    --reset-then-reuse-values --reuse-values --install --create-namespace --wait --no-hooks --take-ownership
    --force-conflicts --dry-run=server
""")


def values_problems(values: object) -> Iterator[str]:
    """Yield the reasons why the chart refuses values."""
    yield from problems(values, SCHEMA, SCHEMA)


def helm_problems(words: list[str]) -> tuple[list[str], Arguments]:
    """Return the problems of a command, and its arguments."""
    arguments = parsed(words, _VALUES, _SWITCHES)
    found = [f"the checks do not know the option {word}" for word in arguments.unknown]
    if arguments.positional[0] not in _VERBS:
        found.append(f"the checks do not know helm {arguments.positional[0]}")
    if not any("tokenbucket" in word for word in arguments.positional):
        return found, arguments  # the chart of another project
    for given in arguments.values("--set", "--set-string"):
        for assignment in given.split(","):
            found += values_problems(_nested(assignment))
    return found, arguments


def _nested(assignment: str) -> object:
    path, _, text = assignment.partition("=")
    value: Any = yaml.safe_load(text)
    for name in reversed(path.split(".")):
        value = {name: value}
    return value
