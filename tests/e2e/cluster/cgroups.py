"""The cluster's cgroups: one folder in every hierarchy, with one below it for each node."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from .errors import ClusterError

_MOUNT = Path("/sys/fs/cgroup")
_UNIFIED = "unified"


def hierarchies() -> list[Path]:
    """Return root of every cgroup hierarchy: one with version 2, one for each controller with version 1."""
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    return sorted(path for path in _MOUNT.iterdir() if path.is_dir() and not path.is_symlink())


def unified(relative: str) -> Path:
    """Return the folder of the cgroup ``relative`` in the hierarchy of version 2."""
    return next(path for path in hierarchies() if (path / "cgroup.controllers").exists()) / relative


def create(relative: str) -> None:
    """Make the cgroup ``relative`` ("a/b") in every hierarchy, usable for containers."""
    for hierarchy in hierarchies():
        folder = hierarchy
        for name in relative.split("/"):
            _delegate_all(folder)
            parent, folder = folder, folder / name
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(parent, folder)
        _delegate_all(folder)


def remove(relative: str, timeout_s: float = 15.0) -> None:
    """Remove the cgroup from every hierarchy, with all below it. Processes still in it are killed: they can
    only be the cluster's. Raises ClusterError when one stays.
    """
    deadline = time.monotonic() + timeout_s
    while left := existing(relative):
        for top in left:
            _remove_tree(top)
        if time.monotonic() > deadline:
            raise ClusterError("cgroups", f"could not be removed: {', '.join(map(str, existing(relative)))}")
        time.sleep(0.02)


def existing(relative: str) -> list[Path]:
    """Return where the cgroup exists."""
    return [hierarchy / relative for hierarchy in hierarchies() if (hierarchy / relative).is_dir()]


def _remove_tree(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        _kill_members(Path(folder))
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _kill_members(folder: Path) -> None:
    try:
        members = (folder / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in members:
        # 0 stands for a process outside this PID namespace, which kill() would take for ourselves.
        with contextlib.suppress(ProcessLookupError):
            if int(pid) > 0:
                os.kill(int(pid), signal.SIGKILL)


def _inherit_cpuset(parent: Path, folder: Path) -> None:
    """Fill a new cpuset of version 1, which rejects processes while it is empty."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if not (folder / "cgroup.controllers").exists() and file.exists() and not file.read_text().strip():
            file.write_text((parent / name).read_text())


def _delegate_all(folder: Path) -> None:
    """Permit child groups to use every controller (version 2 only)."""
    controllers = folder / "cgroup.controllers"
    if controllers.exists() and not (folder.name == _UNIFIED and folder.parent == _MOUNT):
        for controller in controllers.read_text().split():
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
