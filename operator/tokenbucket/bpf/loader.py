"""Compiles, loads and pins the program with bcc, then exits: ``python -m tokenbucket.bpf.loader``.

The loader is a child process, because bcc maps LLVM (about 190 MiB), and LLVM calls abort() on some errors.
Its results are pins. It prints errors to stderr and exits with status 1, and :mod:`tokenbucket.bpf.load`
turns the output into one message.
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
"""Folder of Debian's python3-bpfcc. The module is on no package index, and works with any Python 3."""


def import_bcc() -> ModuleType:
    """Import bcc from the packages of this Python or of Debian. Raises ImportError."""
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
    """Compile ``file`` with the headers in ``folder`` and the maps pinned in ``maps``, to a ``bcc.BPF``."""
    bcc = import_bcc()
    flags = [f"-DTB_SLOTS={sizes.slots}", f"-DTB_PEERS={sizes.peers}", f'-DTB_PIN_DIR="{maps}"']
    with kernel_headers() as headers:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers)
        return bcc.BPF(text=one_text(file, folder).encode(), cflags=flags)


def load(source: Path, pins: Pins, sizes: Sizes) -> None:
    """Load one build and pin it. A rename makes the folder of its programs appear complete."""
    bcc = import_bcc()
    pins.maps.mkdir(parents=True, exist_ok=True)
    program = compiled(source / "token_bucket.c", source, pins.maps, sizes)
    unfinished = pins.programs / f"loading_{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)  # left over from a killed loader with the same process id
    unfinished.mkdir(parents=True)
    try:
        for name in HookProgram:
            fd = program.load_func(name.encode(), bcc.BPF.SCHED_CLS).fd  # type: ignore[attr-defined]
            syscall.pin(fd, unfinished / name)
        unfinished.rename(pins.build(build_of(source)))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main() -> int:
    """Run the loader. Arguments: C source folder, pin folder, number of slots, number of peers."""
    source, root, slots, peers = sys.argv[1:]
    try:
        load(Path(source), Pins(Path(root)), Sizes(int(slots), int(peers)))
    except Exception as error:  # noqa: BLE001 - every error of bcc becomes one line for the parent
        print(f"loader: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
