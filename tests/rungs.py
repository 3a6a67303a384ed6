"""Requirements of each rung. The checks probe for features, and do not compare versions."""

from __future__ import annotations

import functools
import importlib.machinery
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tokenbucket.bpf.headers import kernel_headers
from tokenbucket.bpf.loader import DEBIAN_PACKAGES
from tokenbucket.bpf.tcx_links import query_programs
from tokenbucket.errors import KernelError, UnsupportedError

_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39
LOOPBACK, TCX_INGRESS = 1, 46
_VETH = "ip link add probe0 type veth peer name probe1\n"
_ATTACH_A_FILTER = "tc filter add dev probe0 ingress bpf direct-action bytecode '1,6 0 0 0'"


def _unit() -> str | None:
    return None


def _chart() -> str | None:
    return None  # the test names the make target that installs a missing tool


def _bpf() -> str | None:
    return _capabilities() or _tools("gcc", "clang", "ip", "tc", "ping", "nsenter") or _bcc() or _headers()


def _netns() -> str | None:
    return _bpf() or _cls_bpf()


def _vm() -> str | None:
    tools = ("buildah", "busybox", "debootstrap", "depmod", "qemu-system-x86_64", "setpriv")
    return _x86() or _capabilities() or _tools(*tools, made_by="make cluster-setup")


def _e2e() -> str | None:
    if os.environ.get("TOKENBUCKET_E2E_KUBECONFIG"):
        return _tools("helm", "kubectl")
    tools = ("buildah", "debootstrap", "runc", "nft", "openssl", "gcc")
    return _capabilities() or _tools(*tools, made_by="make cluster-setup")


def _e2e_cilium() -> str | None:
    return _e2e() or _tcx() or _tools("clang-19", "iptables", made_by="make e2e-cilium-setup")


def _fq() -> str | None:
    return _qdisc("fq")


def _netem() -> str | None:
    return _qdisc("netem")


def _tcx() -> str | None:
    try:
        query_programs(LOOPBACK, TCX_INGRESS)
    except KernelError as error:
        return f"the kernel has no tcx: {error}"
    return None


def _macvlan() -> str | None:
    return _link_on_top("macvlan")


def _ipvlan() -> str | None:
    return _link_on_top("ipvlan")


def _ifb() -> str | None:
    error = _refused("ip link add probe0 type ifb")
    return f"the kernel has no ifb: {error}" if error else None


def _netkit() -> str | None:
    error = _refused("ip link add probe0 type netkit")
    return f"the kernel has no netkit: {error}" if error else None


RUNGS: dict[str, Callable[[], str | None]] = {
    "unit": _unit,
    "chart": _chart,
    "bpf": _bpf,
    "netns": _netns,
    "vm": _vm,
    "e2e": _e2e,
    "e2e_cilium": _e2e_cilium,
}
"""Requirements by folder of tests/, in the order of the ladder."""

PARTS: dict[str, Callable[[], str | None]] = {
    "sch_fq": _fq,
    "sch_netem": _netem,
    "tcx": _tcx,
    "macvlan": _macvlan,
    "ipvlan": _ipvlan,
    "ifb": _ifb,
    "netkit": _netkit,
}
"""Optional kernel features. pytest skips a test with the mark ``needs("sch_fq")`` if the kernel lacks it."""

PROBES = RUNGS | PARTS


@functools.cache
def missing(name: str) -> str | None:
    """Return the requirement of a rung or part that the machine lacks. Return ``None`` if it has all."""
    return PROBES[name]()


def _x86() -> str | None:
    machine = platform.machine()
    return None if machine == "x86_64" else f"the virtual machines are x86_64, this machine is {machine}"


def _capabilities() -> str | None:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    wanted = {"CAP_NET_ADMIN": _CAP_NET_ADMIN, "CAP_SYS_ADMIN": _CAP_SYS_ADMIN, "CAP_BPF": _CAP_BPF}
    lacking = [name for name, bit in wanted.items() if not effective >> bit & 1]
    if lacking:
        return f"uid {os.geteuid()} lacks {', '.join(lacking)}; run as root"
    return None


def _tools(*names: str, made_by: str = "make setup") -> str | None:
    lacking = [name for name in names if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)}; run '{made_by}'" if lacking else None


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
    error = _refused(f"{_VETH}tc qdisc add dev probe0 clsact\n{_ATTACH_A_FILTER}")
    return f"a BPF filter cannot be attached here: {error}" if error else None


def _qdisc(kind: str) -> str | None:
    error = _refused(f"{_VETH}tc qdisc add dev probe0 root {kind}")
    return f"the kernel has no sch_{kind}: {error}" if error else None


def _link_on_top(kind: str) -> str | None:
    error = _refused(f"{_VETH}ip link add link probe0 name probe2 type {kind}")
    return f"the kernel has no {kind}: {error}" if error else None


def _refused(script: str) -> str | None:
    """Return the error of a shell script in a new network namespace, or ``None`` if the script succeeds."""
    command = ["unshare", "--net", "sh", "-ec", script]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join(tried.stderr.split()) or f"status {tried.returncode}" if tried.returncode else None
