"""Write docs/reference/cli.md from the help of every command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("tokenbucket")
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
HEADING = "<!-- Written by 'make generate'. -->\n\n# Command line\n"


def help_of(*verb: str) -> str:
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    command = [COMMAND, *verb, "--help"]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def section(title: str, text: str) -> str:
    return f"\n## {title}\n\n```text\n{text}\n```"


def main() -> None:
    overview = help_of()
    verbs = re.findall(r"^    ([a-z]+)\b", overview, flags=re.MULTILINE)
    sections = [section("tokenbucket", overview)]
    sections += [section(f"tokenbucket {verb}", help_of(verb)) for verb in verbs]
    PAGE.write_text(HEADING + "\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
