"""Removes a cluster, complete or half-made, started by this process or by one that was killed."""

from __future__ import annotations

import shutil

from . import cgroups, record
from .box import end_root
from .errors import ClusterError
from .layout import Layout


def remove(place: Layout) -> None:
    """Remove everything of the cluster. Raises ClusterError with the objects that stay."""
    found = record.load(place.record)
    if found is not None:
        end_root(found.guardian, found.boxes.values())
    cgroups.remove(place.cgroup)
    shutil.rmtree(place.root, ignore_errors=True)
    if place.root.exists():
        raise ClusterError("state", f"{place.root} could not be removed")
    _remove_if_empty(place)


def leftovers(place: Layout) -> list[str]:
    """Return the existing objects of the cluster as text; empty after ``remove``."""
    found = record.load(place.record)
    recorded = (found.guardian, *found.boxes.values()) if found else ()
    running = [f"process {process.pid}" for process in recorded if process.alive()]
    groups = [f"cgroup {path}" for path in cgroups.existing(place.cgroup)]
    return [*running, *groups, *([f"directory {place.root}"] if place.root.exists() else [])]


def _remove_if_empty(place: Layout) -> None:
    try:
        place.root.parent.rmdir()
    except OSError:
        return
