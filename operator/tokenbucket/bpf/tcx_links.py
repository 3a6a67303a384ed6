"""Links and queries of multi-program hooks, by bpf(2). Every function raises KernelError."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from tokenbucket.bpf.syscall import Command, bpf, object_info

_BEFORE = 1 << 3
"""``BPF_F_BEFORE``; without a relative program: at the head."""
_QUERY_COUNT = 24
"""Offset of the number of programs in the attributes of a query."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """Fields of ``struct bpf_link_info`` of a tcx link. ``ifindex`` is 0 if the interface is gone."""

    id: int
    program_id: int
    ifindex: int


def link_info(fd: int, subject: str = "link") -> LinkInfo:
    """Return the ids of a tcx link and of its program, and the interface."""
    _, link_id, program_id, _, ifindex = struct.unpack_from("=IIIII", object_info(fd, 24, subject))
    return LinkInfo(link_id, program_id, ifindex)


def attach_first(program: int, ifindex: int, attach_type: int, subject: str) -> int:
    """Attach a program before all others of a multi-program hook, and return the descriptor of its link.

    Closing the last descriptor of a link that is not pinned detaches the program.

    Raises KernelError: EINVAL if the kernel does not know ``attach_type``, ENODEV if the interface is gone,
    ERANGE if the hook is full.
    """
    attributes = struct.pack("=IIIIIIQ", program, ifindex, attach_type, _BEFORE, 0, 0, 0)
    return bpf(Command.LINK_CREATE, attributes, subject)[0]


def update_link(link: int, program: int, subject: str = "link") -> None:
    """Replace the program of a link in one step. Raises KernelError with ENOLINK if the interface is gone."""
    bpf(Command.LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0), subject)


def detach_link(link: int, subject: str = "link") -> None:
    """Detach the program of a link. It no longer runs when this function returns."""
    bpf(Command.LINK_DETACH, struct.pack("=I", link), subject)


def query_programs(ifindex: int, attach_type: int, most: int = 64) -> list[tuple[int, int]]:
    """Return the ids of the programs at a multi-program hook of an interface, and of their links, in order.

    A program without a link has link id 0. Interfaces are those of the calling thread's network namespace.

    Raises KernelError: EINVAL if the kernel does not know ``attach_type``, ENODEV if the interface is gone,
    ENOSPC if there are more than ``most``.
    """
    programs, links = (ctypes.c_uint32 * most)(), (ctypes.c_uint32 * most)()
    attributes = struct.pack(
        "=IIIIQIIQQQQ",
        *(ifindex, attach_type, 0, 0, ctypes.addressof(programs), most, 0),
        *(0, ctypes.addressof(links), 0, 0),
    )
    _, buffer = bpf(Command.PROG_QUERY, attributes, f"programs of interface {ifindex}")
    (count,) = struct.unpack_from("=I", buffer, _QUERY_COUNT)
    return list(zip(programs[:count], links[:count], strict=True))
