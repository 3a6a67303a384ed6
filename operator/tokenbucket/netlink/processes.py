"""Finds the process that owns a netlink socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tokenbucket.netlink.namespaces import own_namespace

_RANDOM_FROM = 1 << 31
"""The kernel gives port ids from this number on to the second and further sockets of a process."""
_PID_MASK = 0x3FFFFF
"""Libraries such as libnl put a number of their own into the bits above the process id."""


def process_name(portid: int) -> str | None:
    """Return the names of the processes of this network namespace that may own a port id.

    The port id of a process's first socket is its process id in its own PID namespace, so several processes
    may match. The calling process never matches. Returns ``None`` if no process matches: it may have ended,
    or be in a PID namespace that this process does not see, as in a cluster.

    The function reads all of /proc, so do not call it for every event.
    """
    if not 0 < portid < _RANDOM_FROM:
        return None
    names = sorted({name for name in _names(portid & _PID_MASK) if name})
    return " or ".join(names) or None


def _names(pid: int) -> Iterator[str | None]:
    own = own_namespace().inode
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            yield _name_if(process, pid, own)


def _name_if(process: Path, pid: int, netns_inode: int) -> str | None:
    try:
        status = (process / "status").read_text(errors="replace")
        if _innermost_pid(status) != pid or (process / "ns/net").stat().st_ino != netns_inode:
            return None
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:  # the process has ended
        return None


def _innermost_pid(status: str) -> int | None:
    """Return the process id in the innermost PID namespace."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None
