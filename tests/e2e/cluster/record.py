"""The state of a cluster on disk, so that any later process can use and remove it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .identity import Process
from .shape import Node


@dataclass(frozen=True, slots=True)
class Record:
    """The state of one cluster, complete or half-made."""

    guardian: Process
    """Outside the cluster's namespaces: when it dies, the first process of the root box is killed."""
    boxes: dict[str, Process] = field(default_factory=dict)
    """First process of each box, by name, with the pid it has outside."""
    nodes: tuple[Node, ...] = ()
    port: int = 0
    """Where the API server is reached from outside, on 127.0.0.1; 0 before it is up."""
    images: tuple[str, ...] = ()
    """Identities of the images that every node has."""
    complete: bool = False
    """Whether ``up`` came to its end."""


def save(record: Record, path: Path) -> None:
    """Replace the file at once: it is never half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(record), indent=1))
    partial.replace(path)


def load(path: Path) -> Record | None:
    """Return the record of a cluster, or None when there is none."""
    try:
        return _parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def _parse(document: dict[str, Any]) -> Record:
    return Record(
        guardian=Process(**document["guardian"]),
        boxes={name: Process(**process) for name, process in document["boxes"].items()},
        nodes=tuple(Node(**node) for node in document["nodes"]),
        port=document["port"],
        images=tuple(document["images"]),
        complete=document["complete"],
    )
