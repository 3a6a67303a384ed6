"""Isolate the tests from the machine: the test process gets its own namespaces.

Everything that a killed test leaves in these namespaces ends with the process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


@functools.cache
def private_namespaces() -> None:
    """Move this process, once, to its own network and mount namespaces.

    The namespaces have an empty bpffs, no names in /run/netns, and no locks in /run/tokenbucket.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET))
    _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    _check(libc.mount(b"bpf", b"/sys/fs/bpf", b"bpf", ctypes.c_ulong(0), None))
    for folder in ("/run/netns", "/run/tokenbucket"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        _check(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(0), None))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _check(result: int) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
