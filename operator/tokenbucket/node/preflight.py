"""Check what limits would run on this node, without changing it.

The program is loaded with pins of its own, which are removed, and attached to the loopback interface of a
network namespace that ends with the check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import BPFFS, Pins, Sizes, has_bpffs
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.cni import CniResults
from tokenbucket.core.limits.slot import NO_SLOT
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.core.planning.foreign import list_programs
from tokenbucket.core.status.node_check import Finding, NodeCheck, State
from tokenbucket.errors import KernelError, LoadError, UnsupportedError
from tokenbucket.netlink.connection import call_in_new_namespace, connect
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.fq import has_fq
from tokenbucket.netlink.ifb import ensure_ifb
from tokenbucket.node.foreign_programs import programs_to_pods
from tokenbucket.node.view import View

_LOOPBACK, _IFB = 1, 7
_SIZES = Sizes(slots=4, peers=64)
_BTF = Path("/sys/kernel/btf/vmlinux")
_CGROUP2 = Path("/sys/fs/cgroup/cgroup.controllers")


def check(node: str, cni_results: Path) -> NodeCheck:
    """Return the results of this node."""
    findings = [_kernel(), *_data_path(), _cni_results(cni_results)]
    return NodeCheck(node, tuple(findings))


def _kernel() -> Finding:
    btf = "with" if _BTF.exists() else "without"
    cgroup = "v2" if _CGROUP2.exists() else "v1"
    system = os.uname()
    detail = f"Linux {system.release} {system.machine}, {btf} BTF, cgroup {cgroup}; both are optional"
    return Finding("kernel", State.OK, detail)


def _data_path() -> Iterator[Finding]:
    """Yield the results of the parts that limits need. Each needs the ones before."""
    if not has_bpffs():
        yield Finding(
            "bpffs", State.NO_LIMIT, f"{BPFFS} has none", "mount it at boot, or set agent.mountBpffs"
        )
        return
    yield Finding("bpffs", State.OK, f"mounted at {BPFFS}")
    try:
        with _loaded() as (pins, build):
            yield Finding("program", State.OK, "the kernel accepts the program")
            yield from call_in_new_namespace(lambda: list(_traffic_control(pins, build)))
            yield from _shared_with(Tcx(pins))
    except LoadError as error:
        text = "report it with this message; see the kernel requirements"
        yield Finding("program", State.NO_LIMIT, str(error), text)
    except KernelError as error:
        yield Finding("network", State.NO_LIMIT, str(error), "run the check as root, with the agent's rights")


@contextmanager
def _loaded() -> Iterator[tuple[Pins, str]]:
    """Load the program for a moment."""
    pins = Pins(BPFFS / f"tokenbucket_check_{os.getpid()}")
    try:
        yield pins, ensure_loaded(pins, _SIZES)
    finally:
        pins.remove()


def _traffic_control(pins: Pins, build: str) -> Iterator[Finding]:
    """Yield the results of a namespace without other programs."""
    with connect() as connection, closing(Programs(pins, build)) as programs:
        try:
            for hook in Hook:
                Filters(connection).attach(_LOOPBACK, hook, programs.fds[hook], NO_SLOT)
            yield Finding("clsact", State.OK, "the kernel attaches the program")
        except (KernelError, UnsupportedError) as error:
            text = "load the modules cls_bpf and sch_ingress"
            yield Finding("clsact", State.NO_LIMIT, str(error), text)
        if has_fq(connection):
            yield Finding("fq", State.OK, "the kernel has fq")
        else:
            text = "load the module sch_fq, or declare exceedAction: Drop"
            yield Finding("fq", State.NO_DELAY, "the kernel has no fq: Delay is degraded to Drop", text)
        try:
            ensure_ifb(connection, _IFB)
            yield Finding("ifb", State.OK, "the kernel has ifb")
        except (KernelError, UnsupportedError) as error:
            text = "load the module ifb, if a data plane redirects packets into pods"
            yield Finding("ifb", State.NOTE, str(error), text)


def _shared_with(tcx: Tcx) -> Iterator[Finding]:
    """Yield the results of the interfaces of the node."""
    if tcx.is_supported:
        yield Finding("tcx", State.OK, "the kernel has tcx")
    else:
        yield Finding("tcx", State.NOTE, "the kernel has no tcx: other programs can run before limits")
    with connect() as connection:
        view = View(connection, tcx)
        view.refresh()
        found = programs_to_pods(view, tcx.names)
        if not found:
            yield Finding("foreign programs", State.OK, "none at interfaces of pods")
            return
        action = "" if tcx.is_supported else "upgrade to Linux 6.6, and look for the reason Shadowed"
        yield Finding("foreign programs", State.NOTE, list_programs(found), action)


def _cni_results(folder: Path) -> Finding:
    results = CniResults(folder)
    try:
        results.refresh()
        count = len(results.pods)
    finally:
        results.close()
    if count:
        return Finding("CNI results", State.OK, f"{folder} has the results of {count} pods")
    text = "set agent.cniResultsPath if the runtime has another directory"
    return Finding(
        "CNI results", State.NOTE, f"{folder} has no results: first packets of pods are not limited", text
    )
