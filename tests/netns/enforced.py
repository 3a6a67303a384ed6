"""Times in which a limit is declared by the test, attached, and not reported as failed by the agent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.bounds import bound_of
from tests.observer import Bound
from tokenbucket.core.api.policy import Direction, Policy
from tokenbucket.core.planning.reasons import Effect, Reason

Line = Mapping[str, Any]
"""One line of the agent's log."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A policy that the test writes or removes (``None``), and the time on the monotonic clock."""

    time_s: float
    name: str
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Span:
    """A time span of the monotonic clock in which the limit must be enforced."""

    pod: str
    direction: Direction
    bound: Bound
    start_s: float
    end_s: float


def spans(log: Iterable[Line], declared: Sequence[Declaration], wall_s: float) -> Iterator[Span]:
    """Return the spans of all limits. ``wall_s`` is the wall clock when the monotonic clock is zero."""
    for line, start_s, end_s in _reported(log, wall_s):
        pod, direction = line["limit"].rpartition("/")[2].split()
        policies = [each for each in declared if each.name == line["policy"]]
        earlier = [each.policy for each in policies if each.time_s <= start_s]
        policy = earlier[-1] if earlier else None
        limit = policy and policy.limits.get(Direction(direction))
        if limit and (bound := bound_of(limit)):
            changes = (each.time_s for each in policies if each.time_s > start_s and each.policy != policy)
            yield Span(pod, Direction(direction), bound, start_s, min((*changes, end_s)))


def _reported(log: Iterable[Line], wall_s: float) -> Iterator[tuple[Line, float, float]]:
    """Follow the log. Return each line that set a limit, and the span in which the limit was enforced."""
    reports = _Reports()
    since: dict[str, tuple[Line, float]] = {}
    for line in log:
        time_s = datetime.fromisoformat(line["time"]).timestamp() - wall_s
        reports.add(line)
        enforced = reports.enforced
        for key in [key for key, (limit, _) in since.items() if enforced.get(key) is not limit]:
            yield *since.pop(key), time_s
        since |= {key: (enforced[key], time_s) for key in enforced.keys() - since.keys()}
    for limit, start_s in since.values():
        yield limit, start_s, math.inf


@dataclass(slots=True)
class _Reports:
    """The limits after a part of the log."""

    limits: dict[int, Line] = field(default_factory=dict)
    """The limits by slot."""
    attached: set[int] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def add(self, line: Line) -> None:
        match line["event"]:
            case "limit set":
                self.limits[line["slot"]] = line
            case "attached":
                self.attached.add(line["slot"])
            case "limit removed":
                self.attached.discard(line["slot"])
            case "limit not enforced as declared" if Reason(line["reason"]).effect is Effect.FAILED:
                self.failed.add(line["limit"])
            case "reason no longer applies":
                self.failed.discard(line["limit"])

    @property
    def enforced(self) -> dict[str, Line]:
        limits = (line for slot, line in self.limits.items() if slot in self.attached)
        return {
            line["limit"]: line for line in limits if not (line["observes"] or line["limit"] in self.failed)
        }
