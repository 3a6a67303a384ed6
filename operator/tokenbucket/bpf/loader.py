"""Compiles, loads and pins the program with bcc, then exits: ``python -m tokenbucket.bpf.loader``.

Run as a child process of its own, because bcc maps LLVM (some 190 MiB) and LLVM ends a process that it
does not like with abort(). What it leaves are pins. What goes wrong goes to stderr, with exit status 1;
:mod:`tokenbucket.bpf.load` makes one readable error of it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

from tokenbucket.bpf import syscall
from tokenbucket.bpf.headers import kernel_headers
from tokenbucket.bpf.pins import HookProgram, Pins, Sizes, build_of

DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"
"""Where Debian puts bcc's Python module, which is on no package index. It has no tie to one Python."""


def import_bcc() -> ModuleType:
    """Imports bcc from this Python's own packages or from Debian's. Raises ImportError."""
    sys.path.append(DEBIAN_PACKAGES)
    try:
        import bcc  # noqa: PLC0415 - found on the path of this moment only
    finally:
        sys.path.remove(DEBIAN_PACKAGES)
    module: ModuleType = bcc
    return module


_LOOKUP = re.compile(r"bpf_map_lookup_elem\(&(\w+), ([\w&>-]+)\)")
_INSERT = re.compile(r"bpf_map_update_elem\(&(\w+), ([\w&>-]+), ([\w&>-]+), BPF_NOEXIST\)")


def one_text(file: Path, folder: Path) -> str:
    """Return a C file for bcc, with its headers pasted in, and map helpers translated to bcc's methods.

    bcc translates the methods back, but only in the main file and outside macros.
    """
    lines = [f'#line 1 "{file.name}"']
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        included = re.fullmatch(r'#include "(.+)"', line)
        if included:
            lines += [one_text(folder / included[1], folder), f'#line {number + 1} "{file.name}"']
        else:
            lines.append(_INSERT.sub(r"\1.insert(\2, \3)", _LOOKUP.sub(r"\1.lookup(\2)", line)))
    return "\n".join(lines)


def compiled(file: Path, folder: Path, maps: Path, sizes: Sizes) -> object:
    """Compiles ``file``, with headers of ``folder`` and maps pinned in ``maps``. Returns a ``bcc.BPF``."""
    bcc = import_bcc()
    flags = [f"-DTB_SLOTS={sizes.slots}", f"-DTB_PEERS={sizes.peers}", f'-DTB_PIN_DIR="{maps}"']
    with kernel_headers() as headers:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers)
        return bcc.BPF(text=one_text(file, folder).encode(), cflags=flags)


def load(source: Path, pins: Pins, sizes: Sizes) -> None:
    """Loads one build and pins it. The folder of its programs appears complete or not at all."""
    bcc = import_bcc()
    pins.maps.mkdir(parents=True, exist_ok=True)
    program = compiled(source / "token_bucket.c", source, pins.maps, sizes)
    unfinished = pins.programs / f"loading_{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed, and had this number
    unfinished.mkdir(parents=True)
    try:
        for name in HookProgram:
            fd = program.load_func(name.encode(), bcc.BPF.SCHED_CLS).fd  # type: ignore[attr-defined]
            syscall.pin(fd, unfinished / name)
        unfinished.rename(pins.build(build_of(source)))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main() -> int:
    """Arguments: folder of the C source, folder of the pins, numbers of slots and of peers."""
    source, root, slots, peers = sys.argv[1:]
    try:
        load(Path(source), Pins(Path(root)), Sizes(int(slots), int(peers)))
    except Exception as error:  # noqa: BLE001 - whatever bcc raises becomes one line for the parent
        print(f"loader: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
