"""Read what pods offered to limits in Observe mode, from the agents of their nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.offered_report import OfferedReport
from tokenbucket.plugin.connection import Connection
from tokenbucket.plugin.errors import MissingError
from tokenbucket.plugin.live import LiveClient
from tokenbucket.plugin.resources import PODS

Records = dict[Direction, dict[str, OfferedReport]]
"""By direction and pod."""


def offered_to(
    connection: Connection, client: LiveClient, selector: str, timeout_s: float
) -> tuple[Records, list[str]]:
    """Return the records of the selected pods, and the problems of nodes that did not answer.

    Raises MissingError if the selector selects no running pod.
    """
    uids: dict[str, list[str]] = defaultdict(list)
    for pod in connection.list(PODS, connection.namespace, labelSelector=selector):
        if node := (pod.get("spec") or {}).get("nodeName"):
            uids[node].append(pod["metadata"]["uid"])
    if not uids:
        text = "selects no pod that has a node; change the selector or the namespace"
        raise MissingError(f"selector {selector} in namespace {connection.namespace}: {text}")
    figures = client.fetch(uids, timeout_s)
    silent = [f"node {node}: {why}" for node, why in sorted(figures.silent.items())]
    return records_of(figures.pods.values()), silent


def records_of(pods: Iterable[Mapping[str, Any]]) -> Records:
    """Return the records in the documents of pods. Documents of other versions are left out."""
    records: Records = {direction: {} for direction in Direction}
    for pod in pods:
        for direction, report in _records_of(pod):
            records[direction][str(pod["pod"])] = report
    return records


def _records_of(pod: Mapping[str, Any]) -> Iterator[tuple[Direction, OfferedReport]]:
    for limit in pod.get("limits") or ():
        try:
            yield Direction(limit["direction"]), OfferedReport.of_document(limit["offered"])
        except (KeyError, TypeError, ValueError):
            continue
