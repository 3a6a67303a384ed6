"""Write docs/reference/support-matrix.md and its quotation in README.md, from the recorded results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support import results
from tests.support.results import Component, Key, Result

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "support-matrix.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- tested: written by 'make generate' -->\n", "<!-- end of tested -->"
HEAD = """\
<!-- Written by 'make generate'. -->

# Support matrix

Each row is a version that the documentation names, with the last recorded run of its tests.
"Not tested" means that no run is recorded. Other versions can work, but nothing was run on them.
[Testing](../contributing/testing.md#support-matrix) describes how the commands record results.
"""


def row(component: Component, version: str, result: Result | None) -> str:
    """Return one line of a table."""
    if result is None:
        return f"| {version} | not tested | | | | `{component.command_of(version)}` |"
    ended = "passed" if result.passed else "**failed**"
    tests = f"{result.release}; {result.summary}"
    commit = result.commit or "not recorded"
    return f"| {version} | {ended} | {tests} | {result.date} | {commit} | `{result.command}` |"


def section(component: Component, recorded: Mapping[Key, Result]) -> str:
    """Return the heading and the table of a component."""
    rows = (row(component, each, recorded.get((component.name, each))) for each in component.versions)
    head = ["| version | result | release and tests | date | commit | command |", "|---|---|---|---|---|---|"]
    proves = f"The tests prove: {component.proves}."
    return "\n".join([f"## {component.name}", "", proves, "", *head, *rows, ""])


def page(recorded: Mapping[Key, Result]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *(section(each, recorded) for each in results.components())])


def quotation(recorded: Mapping[Key, Result]) -> str:
    """Return the list of versions that passed."""
    lines = []
    for each in results.components():
        runs = {version: recorded.get((each.name, version)) for version in each.versions}
        passed = [version for version, run in runs.items() if run and run.passed]
        lines.append(f"- {each.name}: {', '.join(passed) or 'not tested'}")
    return "\n".join(lines)


def readme(current: str, recorded: Mapping[Key, Result]) -> str:
    """Return the README with its quotation replaced."""
    before, found, rest = current.partition(BEGIN)
    if not found:
        raise SystemExit(f"{README}: no line {BEGIN}")
    return f"{before}{BEGIN}\n{quotation(recorded)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    recorded = results.read()
    PAGE.write_text(page(recorded))
    README.write_text(readme(README.read_text(), recorded))


if __name__ == "__main__":
    main()
