"""Reads structs and enums from the BTF section of an object file.

``Documentation/bpf/btf.rst`` of the kernel describes the format. Constants are those of ``linux/btf.h``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

INT, ARRAY, STRUCT, ENUM, TYPEDEF, VAR, DATASEC = 1, 3, 4, 6, 8, 14, 15
_WORDS = {INT: 1, ARRAY: 3, STRUCT: 3, ENUM: 2, VAR: 1, DATASEC: 3}
"""Words after ``struct btf_type``, for each member if the kind has members."""
_WITH_MEMBERS = {STRUCT, ENUM, DATASEC}


@dataclass(frozen=True)
class Type:
    """A ``struct btf_type`` with its members."""

    kind: int
    name: str
    size: int
    """In bytes; for a kind that refers to another type, the number of that type."""
    members: tuple[tuple[str, tuple[int, ...]], ...]
    """Names, and the words after each name. ARRAY and VAR have one member without a name."""


def section(elf: bytes, name: str) -> bytes:
    """Return a section of a 64-bit ELF file in the byte order of this machine."""
    (headers_at,) = struct.unpack_from("=Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("=HHH", elf, 0x3A)
    headers = [struct.unpack_from("=II4Q", elf, headers_at + size * index) for index in range(count)]
    names_at = headers[names_index][4]
    for name_offset, _, _, _, offset, length in headers:
        start = names_at + name_offset
        if elf[start : elf.index(b"\0", start)].decode() == name:
            return elf[offset : offset + length]
    raise ValueError(f"no section {name}")


def types(btf: bytes) -> list[Type]:
    """Return the types of a ``.BTF`` section by number. Number 0 is ``void``."""
    header, types_at, types_size, strings_at = struct.unpack_from("=4xIIII", btf)
    position, end = header + types_at, header + types_at + types_size

    def text(offset: int) -> str:
        start = header + strings_at + offset
        return btf[start : btf.index(b"\0", start)].decode()

    found = [Type(0, "void", 0, ())]
    while position < end:
        name, info, size = struct.unpack_from("=III", btf, position)
        position += 12
        kind, words = info >> 24 & 0x1F, _WORDS.get(info >> 24 & 0x1F, 0)
        members = []
        for _ in range(info & 0xFFFF if kind in _WITH_MEMBERS else bool(words)):
            values = struct.unpack_from(f"={words}I", btf, position)
            named = kind in {STRUCT, ENUM}
            members.append((text(values[0]), values[1:]) if named else ("", values))
            position += 4 * words
        found.append(Type(kind, text(name), size, tuple(members)))
    return found
