"""Objects of the machine that a cluster could leave or change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cluster import cgroups, record, teardown
from cluster.identity import Process, all_pids, tree
from cluster.layout import Layout

# What programs of a node would leave on a machine that they think is theirs.
_TRACES = (
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/cilium",
    "/var/lib/cilium",
    "/usr/libexec/kubernetes",
)
_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/timer_migration",
    "kernel/unprivileged_bpf_disabled",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The state of the machine that a cluster could change."""

    traces: tuple[str, ...]
    settings: tuple[str, ...]
    links: frozenset[str]


def machine() -> Machine:
    """Return the current state."""
    return Machine(
        traces=tuple(path for path in _TRACES if Path(path).exists()),
        settings=tuple(_setting(name) for name in _SETTINGS),
        links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
    )


def members(place: Layout) -> set[Process]:
    """Return every process of the cluster: its root box and all descendants."""
    found = record.load(place.record)
    assert found is not None
    return set(tree(found.guardian))


def nothing_is_left(place: Layout, processes: set[Process], networks: set[str]) -> None:
    """Assert that no process, network namespace, mount, cgroup or file is left."""
    assert [process for process in processes if process.alive()] == []
    assert networks & {network_of(pid) for pid in all_pids()} == set()
    assert str(place.root) not in Path("/proc/self/mountinfo").read_text()
    assert cgroups.existing(place.cgroup) == []
    assert teardown.leftovers(place) == []
    assert not place.root.exists()


def network_of(pid: int) -> str:
    """Return the network namespace of a process; empty if the process has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def networks_of(processes: set[Process]) -> set[str]:
    """Return the network namespaces of the cluster, without that of the machine."""
    return {network_of(process.pid) for process in processes} - {network_of(os.getpid()), ""}


def _setting(name: str) -> str:
    file = Path("/proc/sys") / name
    return file.read_text() if file.exists() else ""
