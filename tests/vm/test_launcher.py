"""The scripts that boot the machines are in a cache that several checkouts share."""

from __future__ import annotations

from pathlib import Path

from cluster import virtual_machine

_ROOT = Path(__file__).parents[2]


def test_its_scripts_run_without_this_checkout() -> None:
    for script in (virtual_machine.launcher() / "bin").iterdir():
        interpreter = Path(script.read_text().splitlines()[0].removeprefix("#!").strip())
        assert interpreter.exists(), script
        assert not interpreter.is_relative_to(_ROOT), script
