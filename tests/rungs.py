"""What each rung needs of the machine, found by trying, not by comparing versions."""

from __future__ import annotations

import functools
import importlib.machinery
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tokenbucket.bpf.headers import kernel_headers
from tokenbucket.bpf.loader import DEBIAN_PACKAGES
from tokenbucket.errors import UnsupportedError

_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39
_ATTACH_A_FILTER = """
ip link add probe0 type veth peer name probe1
tc qdisc add dev probe0 clsact
tc filter add dev probe0 ingress bpf direct-action bytecode '1,6 0 0 0'
"""


def _unit() -> str | None:
    return None


def _bpf() -> str | None:
    return _capabilities() or _tools("gcc", "clang", "ip", "tc", "ping", "nsenter") or _bcc() or _headers()


def _netns() -> str | None:
    return _bpf() or _cls_bpf()


def _e2e() -> str | None:
    return _capabilities() or _tools("buildah", "debootstrap", "runc", "nft", "openssl", "gcc")


PROBES: dict[str, Callable[[], str | None]] = {"unit": _unit, "bpf": _bpf, "netns": _netns, "e2e": _e2e}
"""By folder of tests/, in the order of the ladder."""


@functools.cache
def missing(rung: str) -> str | None:
    """What the machine lacks for a rung; ``None`` when it has everything."""
    return PROBES[rung]()


def _capabilities() -> str | None:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    wanted = {"CAP_NET_ADMIN": _CAP_NET_ADMIN, "CAP_SYS_ADMIN": _CAP_SYS_ADMIN, "CAP_BPF": _CAP_BPF}
    lacking = [name for name, bit in wanted.items() if not effective >> bit & 1]
    if lacking:
        return f"uid {os.geteuid()} lacks {', '.join(lacking)}; run as root"
    return None


def _tools(*names: str) -> str | None:
    lacking = [name for name in names if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)}; run 'make setup'" if lacking else None


def _bcc() -> str | None:
    if importlib.machinery.PathFinder.find_spec("bcc", [DEBIAN_PACKAGES]) is None:
        return "no bcc; install python3-bpfcc"
    return None


def _headers() -> str | None:
    try:
        with kernel_headers():
            return None
    except UnsupportedError as error:
        return str(error)


def _cls_bpf() -> str | None:
    command = ["unshare", "--net", "sh", "-ec", _ATTACH_A_FILTER]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"a BPF filter cannot be attached here: {tried.stderr.strip()}"
    return None
