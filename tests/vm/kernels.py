"""Read the kernels of ``kernels.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent / "kernels.toml"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The newest kernel of a series, such as ``6.12``, in a suite of Debian."""

    series: str
    suite: str
    short: bool = False
    """Whether the short selection also runs on this kernel."""

    def __str__(self) -> str:
        return self.series


KERNELS = [Kernel(**entry) for entry in tomllib.loads(_FILE.read_text())["kernel"]]
