"""The log of an agent: one JSON document per line, with times of the node's clock in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.e2e.release import Release


@dataclass(frozen=True, slots=True)
class Line:
    """One event."""

    time_s: float
    """Seconds of the node's wall clock, rounded down to a millisecond."""
    event: str
    details: dict[str, Any]


def agent_log(release: Release, node: str) -> list[Line]:
    """Return the log lines of the agent of a node since its container started."""
    text = release.kubectl.run("logs", release.agent(node))
    return [_line(each) for each in text.splitlines() if each.startswith("{")]


def attached_at(log: Sequence[Line]) -> dict[str, float]:
    """Return the time of the first filters of each limit, by the name of the limit."""
    limits: dict[int, str] = {}
    found: dict[str, float] = {}
    for line in log:
        slot = line.details.get("slot")
        if slot is None:
            continue
        if line.event == "limit set":
            limits[slot] = line.details["limit"]
        elif line.event == "attached" and slot in limits:
            found.setdefault(limits[slot], line.time_s)
        elif line.event == "limit removed":
            limits.pop(slot, None)
    return found


def _line(text: str) -> Line:
    details = json.loads(text)
    moment = datetime.fromisoformat(details.pop("time"))
    return Line(moment.timestamp(), details.pop("event"), details)
