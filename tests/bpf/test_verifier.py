"""Steps of the verifier."""

from __future__ import annotations

import platform
import sys

from tests.bpf.bucket_machine import Machine
from tokenbucket.bpf import syscall

_OFFSET = 216
"""Of ``verified_insns`` in ``struct bpf_prog_info``, since Linux 5.16."""
_MOST = {(6, 18): 60_000, (7, 2): 250_000}
"""Of each kernel whose steps were measured: 41,272 and 173,272. The bound is half as many more."""


def test_the_programs_leave_room_for_other_verifiers(machine: Machine, ingress_machine: Machine) -> None:
    """Kernels differ by a factor of four in the steps that they follow. The limit is a million."""
    major, minor = map(int, platform.release().split(".")[:2])
    steps = [verified_instructions(each.program_fd) for each in (machine, ingress_machine)]
    print("steps at the egress and the ingress hook:", *steps)
    assert 0 < min(steps) <= max(steps) < _MOST.get((major, minor), max(_MOST.values()))


def verified_instructions(program_fd: int) -> int:
    """Return the steps that the verifier followed for a program."""
    raw = syscall.object_info(program_fd, _OFFSET + 4, "program")
    return int.from_bytes(raw[_OFFSET:], sys.byteorder)
