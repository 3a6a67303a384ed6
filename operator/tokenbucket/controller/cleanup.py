"""Clean the nodes of a release while Helm uninstalls it.

Tools other than Helm may run the hooks of the chart when they install it. Helm marks the objects that it
installs, and runs a hook before deletion only when it deletes them. So the cleanup acts only if Helm owns the
agents of the release.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import (
    CONFIG_MAPS,
    DAEMON_SETS,
    NODES,
    REPORTS,
    Selection,
    is_ready,
    metadata_of,
)
from tokenbucket.core.api.parse_report import parse_report
from tokenbucket.core.api.policy import Mode

_INTERVAL_S = 1.0
_HELM = "meta.helm.sh"
_MANAGER = "tokenbucket-cleanup"


@dataclass(frozen=True, slots=True)
class Release:
    """The release to clean up after."""

    namespace: str
    config_map: str
    helm_name: str

    def owns(self, document: Mapping[str, Any]) -> bool:
        """Return whether Helm installed this object with the release."""
        annotations = metadata_of(document).get("annotations") or {}
        owner = (annotations.get(f"{_HELM}/release-namespace"), annotations.get(f"{_HELM}/release-name"))
        return owner == (self.namespace, self.helm_name)

    def reported(self, report: Mapping[str, Any]) -> bool:
        """Return whether an agent of the release wrote this report (earlier versions: any agent)."""
        return parse_report(report).agent.release in {"", f"{self.namespace}/{self.config_map}"}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Names of the nodes that are clean, and of the nodes that did not report it."""

    clean: tuple[str, ...]
    unreachable: tuple[str, ...]


async def clean_up(release: Release, timeout_s: float, say: Callable[[str], None]) -> Cleaned | None:
    """Turn enforcement off, wait until the nodes of the release are clean, and delete their reports.

    Do not wait for nodes that are not ready. Change nothing and return None if Helm does not own the agents.
    Raises ApiError, and UnsupportedError without credentials.
    """
    async with Client() as client:
        if not any(map(release.owns, await client.list(Selection(DAEMON_SETS), release.namespace))):
            return None
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": release.config_map, "namespace": release.namespace},
            "data": {"enforcement": Mode.OFF.value, "cleanup": "true"},
        }
        await client.apply(CONFIG_MAPS, document, _MANAGER)  # also creates a deleted ConfigMap
        say(f"ConfigMap {release.namespace}/{release.config_map}: enforcement is Off, cleanup is requested")
        return await _delete_reports(client, release, timeout_s, say)


async def _delete_reports(
    client: Client, release: Release, timeout_s: float, say: Callable[[str], None]
) -> Cleaned:
    deadline = time.monotonic() + timeout_s
    said = -1
    while True:
        reports = list(filter(release.reported, await client.list(Selection(REPORTS))))
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
