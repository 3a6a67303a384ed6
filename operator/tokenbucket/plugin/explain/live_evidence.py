"""Add the live figures of a pod to the evidence. Without them, the evidence has the cause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tokenbucket.plugin.errors import DeniedError, PluginError
from tokenbucket.plugin.explain.evidence import Evidence
from tokenbucket.plugin.live import LiveClient, find_service

if TYPE_CHECKING:
    from tokenbucket.plugin.connection import Connection

_TIMEOUT_S = 6.0
"""The relay waits at most 4 seconds for an agent."""
_PEERS = 5


def with_live(found: Evidence, connection: Connection, service: str) -> Evidence:
    """Return the evidence with the live figures of the pod, if its agent answers.

    Raises PluginError if ``service`` is not valid.
    """
    uid = found.pod.id.uid
    if not found.node_name or not uid or found.pod.ended or found.pod.host_network:
        return found
    release = found.report.report.agent.release if found.report else ""
    place = find_service(service or (f"{release}-live" if release else ""), connection)
    try:
        figures = LiveClient(connection, place).fetch({found.node_name: [uid]}, _TIMEOUT_S, _PEERS)
    except DeniedError as error:
        return replace(found, live_problem=f"not shown: the right to {error.right} is missing")
    except PluginError as error:
        return replace(found, live_problem=f"not shown: {error}")
    live, problem = figures.pods.get(uid), figures.silent.get(found.node_name, "")
    return replace(found, live=live, live_problem="" if live else f"not shown: {problem or _UNKNOWN}")


_UNKNOWN = "the agent does not know the pod yet"
