"""Write docs/reference/plugin.md from the help of each command, the causes and the exit statuses."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.explain.codes import Code
from tokenbucket.plugin.main import parser

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "plugin.md"
HEAD = """\
<!-- Written by 'make generate'. -->

# kubectl plugin

`kubectl tokenbucket` shows the limits of pods with the rights of its user. It needs no access to nodes.
[Find out why a pod is limited](../tasks/explain-a-pod.md) has the installation and examples.

`-o json` and `-o yaml` of `explain`, `status` and `suggest` print documents with the field `version`.
`kubectl-tokenbucket` is the same command.
"""
CAUSES = """
## Causes

`explain pod` names each cause of the state of a pod: the [reasons](reasons.md) that agents report, and these:

| cause | state | meaning | next step |
|---|---|---|---|
"""
STATUSES = """
## Exit status

| status | meaning |
|---|---|
"""


def section(title: str, command: argparse.ArgumentParser) -> str:
    """Return the section of one command."""
    return f"\n## {title}\n\n```text\n{command.format_help().strip()}\n```\n"


def causes() -> str:
    """Return the table of causes."""
    rows = (f"| `{code}` | {code.state} | {code.meaning} | {code.fix} |" for code in Code)
    return CAUSES + "\n".join(rows) + "\n"


def statuses() -> str:
    """Return the table of exit statuses."""
    return STATUSES + "\n".join(f"| {code.value} | {code.meaning} |" for code in PluginExit) + "\n"


def main() -> None:
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    top = parser()
    found = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    parts = [HEAD, section("kubectl tokenbucket", top)]
    parts += [section(f"kubectl tokenbucket {name}", command) for name, command in found.choices.items()]
    PAGE.write_text("".join([*parts, statuses(), causes()]))


if __name__ == "__main__":
    main()
