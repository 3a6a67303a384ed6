"""Writes the Python mirror of ``operator/bpf/layout.h``, from the BTF of the compiled header.

The structs go to ``operator/tokenbucket/layout.py``. The names of the counters go to
``operator/tokenbucket/core/limits/counters.py`` too, because the core may not import ctypes.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

import btf

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "operator/tokenbucket"
NOTE = "\n\nGenerated from ``operator/bpf/layout.h`` by ``make generate``; do not edit.\n"
FUTURE = "from __future__ import annotations\n\n"
STRUCTS = ("tb_config", "tb_peer", "tb_peer_key", "tb_meters", "tb_flow", "tb_flows", "tb_stats", "tb_owner")
ENUMS = {
    "tb_flag": ("IntFlag", "TB_"),
    "tb_owner_kind": ("IntEnum", "TB_OWNER_"),
    "tb_direction": ("IntEnum", "TB_"),
    "tb_role": ("IntEnum", "TB_ROLE_"),
}
"""The base class in Python, and the prefix of the enumerators that Python omits."""
CONSTANTS, COUNTERS = "tb_constant", "tb_stats"
SCALARS = {"__u8": "c_uint8", "__u16": "c_uint16", "__u32": "c_uint32", "__u64": "c_uint64", "char": "c_char"}


def compiled() -> bytes:
    """Return an object file whose variables have the types of the header: others are not in its BTF."""
    variables = [f"struct {name} {name}_;" for name in STRUCTS]
    variables += [f"enum {name} {name}_;" for name in (*ENUMS, CONSTANTS)]
    text = "\n".join(['#include "layout.h"', *variables])
    # Debian keeps asm/types.h there, which the kernel's headers include.
    include = ["-I", str(ROOT / "operator/bpf"), "-I", f"/usr/include/{platform.machine()}-linux-gnu"]
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        command = ["clang", "-target", "bpf", "-g", *include, "-c", "-x", "c", "-", "-o", file.name]
        subprocess.run(command, input=text, text=True, check=True)
        return Path(file.name).read_bytes()


class Mirror:
    """Python text of the types of the header."""

    def __init__(self) -> None:
        self._types = btf.types(btf.section(compiled(), ".BTF"))
        self._named = {each.name: each for each in self._types if each.kind in {btf.STRUCT, btf.ENUM}}

    def layout(self) -> str:
        """Return the text of ``layout.py``."""
        values = dict(self._named[CONSTANTS].members)
        head = f'"""The structs that user space shares with the BPF program.{NOTE}"""\n\n{FUTURE}'
        constants = f"LAYOUT_VERSION = {values['TB_LAYOUT_VERSION'][0]}\nIFB = {values['TB_IFB'][0]}"
        parts = [
            f"{head}import ctypes\nimport enum\n\n{constants}",
            *(self._enum(name, *python) for name, python in ENUMS.items()),
            *(self._struct(name) for name in STRUCTS),
        ]
        return "\n\n\n".join(parts) + "\n"

    def counters(self) -> str:
        """Return the text of ``counters.py``."""
        names = [name for name, _ in self._named[COUNTERS].members if not name.startswith("unused")]
        head = f'"""The counters of ``struct {COUNTERS}``.{NOTE}"""\n\n{FUTURE}'
        decorated = "from dataclasses import dataclass\n\n\n@dataclass(frozen=True, slots=True)\n"
        summary = f'class Counters:\n    """The fields of ``struct {COUNTERS}``."""\n\n'
        return head + decorated + summary + "".join(f"    {name}: int = 0\n" for name in names)

    def _enum(self, name: str, base: str, prefix: str) -> str:
        members = (
            f"    {member.removeprefix(prefix)} = {value}\n" for member, (value,) in self._named[name].members
        )
        return (
            f'class {class_of(name)}(enum.{base}):\n    """``enum {name}``."""\n\n'
            + "".join(members).rstrip()
        )

    def _struct(self, name: str) -> str:
        fields = (
            f'        ("{field}", {self._type(words[0])}),\n' for field, words in self._named[name].members
        )
        size = self._named[name].size
        return (
            f'class {class_of(name)}(ctypes.Structure):\n    """``struct {name}``, {size} bytes."""\n\n'
            f"    _fields_ = [\n{''.join(fields)}    ]"
        )

    def _type(self, number: int) -> str:
        found = self._types[number]
        if found.kind == btf.ARRAY:
            element, _, length = found.members[0][1]
            return f"{self._type(element)} * {length}"
        return class_of(found.name) if found.kind == btf.STRUCT else f"ctypes.{SCALARS[found.name]}"


def class_of(name: str) -> str:
    """Return the name of the Python class: ``PeerKey`` for ``tb_peer_key``."""
    return name.removeprefix("tb_").title().replace("_", "")


def main() -> None:
    mirror = Mirror()
    (PACKAGE / "layout.py").write_text(mirror.layout())
    (PACKAGE / "core/limits/counters.py").write_text(mirror.counters())


if __name__ == "__main__":
    main()
