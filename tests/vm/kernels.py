"""Read the kernels of ``kernels.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent / "kernels.toml"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The newest of a series, as ``6.12``, in a suite of Debian."""

    series: str
    suite: str
    short: bool = False
    """Whether the short selection runs on this kernel too."""

    def __str__(self) -> str:
        return self.series


KERNELS = [Kernel(**entry) for entry in tomllib.loads(_FILE.read_text())["kernel"]]
