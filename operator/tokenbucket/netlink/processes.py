"""Who is behind a netlink socket, as far as it can still be told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tokenbucket.netlink.namespaces import own_namespace

_RANDOM_FROM = 1 << 31
"""The kernel makes up a portid from here on for a process's further sockets."""
_PID_MASK = 0x3FFFFF
"""Libraries put a number of their own above the process's id."""


def process_name(portid: int) -> str | None:
    """Names of the processes of this network namespace that may have the socket of this portid.

    A process's first socket there has the process's id as its portid, as its own pid namespace counts: so it
    can be several processes, in which case all are named. ``None`` when there is none: a command may have
    ended already, or be in a pid namespace that this process does not see, as all are for an agent in a
    cluster. This process is never named. Reads all of /proc: not for every event.
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
    except OSError:  # ended meanwhile
        return None


def _innermost_pid(status: str) -> int | None:
    """The process's id in its own pid namespace."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None
