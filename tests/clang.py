"""Compile programs of tests as ``make tokenbucket.o`` compiles the shipped program."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tokenbucket.bpf.pins import source_folder


def clang(source: Path, output: Path) -> None:
    """Compile one file for BPF."""
    arch = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    flags = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I", str(source_folder()), arch]
    subprocess.run(["clang", *flags, "-c", str(source), "-o", str(output)], check=True)
