"""Clean all nodes before the release is uninstalled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import CONFIG_MAPS, NODES, REPORTS, Selection, is_ready
from tokenbucket.core.api.node_report import parse_report
from tokenbucket.core.api.policy import Mode

_INTERVAL_S = 1.0
_MANAGER = "tokenbucket-cleanup"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Names of the nodes that are clean, and of the nodes that did not report it."""

    clean: tuple[str, ...]
    unreachable: tuple[str, ...]


async def clean_up(namespace: str, config_map: str, timeout_s: float, say: Callable[[str], None]) -> Cleaned:
    """Turn enforcement off, wait until the nodes are clean, and delete their reports.

    Do not wait for nodes that are not ready. Raises ApiError, and UnsupportedError without credentials.
    """
    async with Client() as client:
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": config_map, "namespace": namespace},
            "data": {"enforcement": Mode.OFF.value, "cleanup": "true"},
        }
        await client.apply(CONFIG_MAPS, document, _MANAGER)  # also creates a deleted ConfigMap
        say(f"ConfigMap {namespace}/{config_map}: enforcement is Off, cleanup is requested")
        deadline = time.monotonic() + timeout_s
        said = -1
        while True:
            reports = await client.list(Selection(REPORTS))
            clean = {_name(report) for report in reports if parse_report(report).clean}
            ready = {_name(node) for node in await client.list(Selection(NODES)) if is_ready(node)}
            waiting = {_name(report) for report in reports} - clean
            if not waiting & ready or time.monotonic() > deadline:
                break
            if len(clean) != said:
                say(f"{len(clean)} of {len(reports)} nodes are clean")
                said = len(clean)
            await asyncio.sleep(_INTERVAL_S)
        for name in sorted(clean | waiting):
            await client.delete(REPORTS, name)
    return Cleaned(tuple(sorted(clean)), tuple(sorted(waiting)))


def _name(document: Mapping[str, Any]) -> str:
    return str(document["metadata"]["name"])
