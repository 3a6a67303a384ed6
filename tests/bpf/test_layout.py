"""The structs of Python match the C header."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from pathlib import Path

from tokenbucket import layout
from tokenbucket.bpf.pins import source_folder
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT


def probe(tmp_path: Path, *expressions: str) -> list[int]:
    """Compile C expressions against the headers, and return their values."""
    lines = "\n".join(
        f'printf("%s%llu", "{"," if i else ""}", (unsigned long long)({e}));'
        for i, e in enumerate(expressions)
    )
    source = tmp_path / "probe.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#define __always_inline inline\n"
        f'#include "layout.h"\n#include "gcra.h"\nint main(void) {{ {lines} return 0; }}\n'
    )
    subprocess.run(
        ["gcc", "-I", str(source_folder()), "-o", str(tmp_path / "probe"), str(source)], check=True
    )
    output = subprocess.run([str(tmp_path / "probe")], check=True, capture_output=True, text=True).stdout
    return list(json.loads(f"[{output}]"))


def test_sizes_and_offsets_match_the_headers(tmp_path: Path) -> None:
    """Each struct has the same size, and each field the same offset and size."""
    structs = [kind for kind in vars(layout).values() if getattr(kind, "_fields_", None)]
    names = [re.findall(r"struct (\w+)", kind.__doc__)[0] for kind in structs]
    assert {"tb_config", "tb_meters", "tb_owner", "tb_peer", "tb_peer_key", "tb_stats"} <= set(names)
    for name, struct in zip(names, structs, strict=True):
        fields = [field[0] for field in struct._fields_]
        expressions = [f"sizeof(struct {name})"]
        for field in fields:
            expressions += [f"offsetof(struct {name}, {field})", f"sizeof(((struct {name} *)0)->{field})"]
        expected = [ctypes.sizeof(struct)]
        for field in fields:
            expected += [getattr(struct, field).offset, getattr(struct, field).size]
        assert probe(tmp_path, *expressions) == expected, name


def test_constants_match_the_headers(tmp_path: Path) -> None:
    """Compare the constants that both sides define."""
    names = {
        "TB_LAYOUT_VERSION": layout.LAYOUT_VERSION,
        "TB_NO_SLOT": NO_SLOT,
        "TB_OBSERVE": layout.Flag.OBSERVE,
        "TB_NODE_RESERVE": layout.Flag.NODE_RESERVE,
        "TB_MARK": layout.Flag.MARK,
        "TB_DELAY": layout.Flag.DELAY,
        "TB_PER_PEER": layout.Flag.PER_PEER,
        "TB_PEER_IS_DESTINATION": layout.Flag.PEER_IS_DESTINATION,
        "TB_OWNER_POD": layout.OwnerKind.POD,
        "TB_OWNER_DEVICE": layout.OwnerKind.DEVICE,
        "TB_QUANTA_PER_NS": gcra.QUANTA_PER_NS,
        "TB_QUANTA_PER_S": gcra.QUANTA_PER_S,
        "TB_BYTES_SHIFT": gcra.BYTES_SHIFT,
        "TB_PACKETS_SHIFT": gcra.PACKETS_SHIFT,
        "TB_AHEAD_MAX": gcra.AHEAD_MAX_Q,
    }
    assert probe(tmp_path, *names) == list(names.values())


def test_structs_keep_the_layout_of_version_2() -> None:
    """Check the sizes, and the offsets of the groups of fields.
    The kernel does not align values to cache lines.
    """
    sizes = [ctypes.sizeof(struct) for struct in (layout.Config, layout.Meters, layout.Stats)]
    assert sizes == [192, 64, 192]
    assert layout.Config.max_delay_q.offset == 64
    assert layout.Config.peer_bytes_scale.offset == 128
    assert layout.Stats.too_fast_packets.offset == 64
