"""Reads what the benchmarks will run once, so that none of them waits for a file.

A machine whose time goes by its instructions leaps forward while it waits for one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokenbucket.bpf import loader
from tokenbucket.bpf.pins import Pins, Sizes, mount_bpffs, source_folder

_PINS = Pins(Path("/sys/fs/bpf/warm"))
_TOOLS = (
    ["iperf3", "--version"],
    ["tc", "-Version"],
    ["ip", "-Version"],
    ["nft", "--version"],
    [sys.executable, "-m", "tokenbucket", "agent", "--help"],
)


def main() -> None:
    """Load the program once, and start the tools."""
    mount_bpffs()
    loader.load(source_folder(), _PINS, Sizes())
    _PINS.remove()
    for command in _TOOLS:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
