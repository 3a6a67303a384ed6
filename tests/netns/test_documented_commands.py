"""The examples of the documentation that need no Kubernetes, run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.blocks import Block
from tests.documentation.coverage import FILES, ON_MACHINE
from tests.documentation.examples import examples
from tests.documentation.sessions import commands_of, missing_lines
from tests.netns.lab import Lab, ip

CASES = {str(place): (place, found) for place, found in examples() if place in ON_MACHINE}
STANDALONE = "standalone: Containers on this machine"


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """Provide the folder of a reader, whose machine has the container and the interface of the pages."""
    lab.pod("web-1", ["172.17.0.2/24"])
    ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    yield tmp_path
    bash(tmp_path, "tokenbucket detach --all")
    ip("link", "del", "eth1")


def bash(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script and end what it has started in the background."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{ended}\n{script}"],
        cwd=folder,
        env=os.environ | {"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )


def commands(found: list[Block]) -> str:
    """Return the commands, without the installation of the checkout."""
    text = "\n".join(block.text for block in found if block.language == "sh")
    return re.sub(r"^make setup$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", CASES)
def test_an_example_works_as_described(name: str, folder: Path) -> None:
    """Run the commands of a section in one shell, and compare the output of its sessions."""
    place, found = CASES[name]
    if "mkdir limits" not in commands(found):
        (folder / "limits").mkdir()
    for file, text in FILES.get(place, {}).items():
        (folder / file).write_text(text)
    if script := commands(found):
        done = bash(folder, script)
        assert done.returncode == 0, done.stdout
    for exchange in (each for block in found if block.language == "text" for each in commands_of(block.text)):
        printed = bash(folder, exchange.command).stdout
        assert missing_lines(exchange, printed) == []


def test_the_pod_of_the_page_is_limited(folder: Path) -> None:
    """Wait, after the commands of the page, until the limit is in the kernel. Then remove it."""
    wait = "until tokenbucket status | grep -q 'shop/web-1 .*100Mbit/s'; do sleep 0.2; done"
    limit, remove = (block.text for block in CASES[STANDALONE][1])
    done = bash(folder, "\n".join([limit.replace("make setup", ""), wait, remove, "tokenbucket status"]))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing is limited")
