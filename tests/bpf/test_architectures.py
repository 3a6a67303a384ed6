"""Numbers and layouts of the kernel's interface match its headers, for each supported architecture."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tokenbucket.bpf import syscall, tcx_links
from tokenbucket.netlink import messages

INCLUDE = Path("/usr/include")
NUMBERS = {
    "x86_64": INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": INCLUDE / "asm-generic/unistd.h",
}
"""arm64 uses the generic numbers. Each machine has their header."""
ARCHITECTURES = sorted(syscall._SYSCALL_NUMBERS)

HEADERS = ("linux/bpf.h", "linux/netlink.h", "linux/rtnetlink.h", "linux/if_link.h", "linux/if_addr.h")
SIZES = {
    "struct nlmsghdr": messages.HEADER.size,
    "struct ifinfomsg": messages.LINK.size,
    "struct ifaddrmsg": messages.ADDRESS.size,
    "struct tcmsg": messages.TC.size,
    "struct bpf_insn": syscall._INSTRUCTION_BYTES,
    "((union bpf_attr *)0)->prog_name": syscall._NAME_BYTES,
}
OFFSETS = {
    "struct tcmsg, tcm_ifindex": 4,
    "union bpf_attr, key": 8,
    "union bpf_attr, batch.count": syscall._BATCH_COUNT,
    "union bpf_attr, insns": 8,
    "union bpf_attr, prog_name": 48,
    "union bpf_attr, map_name": 28,
    "union bpf_attr, info.info": 8,
    "union bpf_attr, link_create.target_btf_id": 16,
    "union bpf_attr, query.prog_cnt": tcx_links._QUERY_COUNT,
    "struct bpf_prog_info, name": 64,
    "struct bpf_map_info, max_entries": 16,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_system_call_numbers_match_the_headers(architecture: str) -> None:
    header = NUMBERS[architecture]
    if not header.exists():
        pytest.skip(f"{header} is a header of another architecture")
    numbers = dict(re.findall(r"^#define __NR_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    assert int(numbers["bpf"]) == syscall._SYSCALL_NUMBERS[architecture]
    assert int(numbers["membarrier"]) == syscall._MEMBARRIER_NUMBERS[architecture]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layouts_match_the_headers(architecture: str, tmp_path: Path) -> None:
    """Let a compiler for that architecture check the sizes and offsets. No code runs."""
    asserted = [f"sizeof({name}) == {size}" for name, size in SIZES.items()]
    asserted += [f"__builtin_offsetof({name}) == {offset}" for name, offset in OFFSETS.items()]
    lines = [f"#include <{header}>" for header in HEADERS]
    lines += [f'_Static_assert({each}, "{each}");' for each in asserted]
    source = tmp_path / "layouts.c"
    source.write_text("\n".join(lines) + "\n")
    # Both architectures use the generic types.
    for name in ("types", "posix_types", "bitsperlong", "socket", "sockios"):
        (tmp_path / "asm").mkdir(exist_ok=True)
        (tmp_path / f"asm/{name}.h").write_text(f"#include <asm-generic/{name}.h>\n")
    target = [f"--target={architecture}-linux-gnu", "-D__BITS_PER_LONG=64", "-I", str(tmp_path)]
    done = subprocess.run(
        ["clang", "-fsyntax-only", *target, str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
