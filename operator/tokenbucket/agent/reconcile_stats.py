"""What became of the agent's passes: written by the loop's thread, read by any."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field

from tokenbucket.agent.source import DesiredInput, Outcome
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.status.node_status import Situation

_UNKNOWN = Situation((), (), (), Mode.ENFORCE, (), {})


class Result(enum.StrEnum):
    """How a pass ended."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    """Something failed that may work when tried again."""
    FAILED = "failed"


@dataclass(slots=True)
class ReconcileStats:
    """Since the agent started."""

    counts: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    seconds: float = 0.0
    completed_at_s: float | None = field(default_factory=time.time)
    """When the last complete one ended, or the agent started, in Unix time; ``None`` where none is made."""
    situation: Situation = _UNKNOWN
    """After the last one that did not fail."""

    def ended(self, wishes: DesiredInput, outcome: Outcome, seconds: float) -> None:
        """One ended."""
        self.situation = Situation(
            wishes.policies,
            (),
            wishes.pods,
            wishes.enforcement,
            outcome.findings,
            outcome.in_force,
            outcome.fq,
        )
        self._count(Result.COMPLETE if outcome.complete else Result.INCOMPLETE, seconds)
        if outcome.complete:
            self.completed_at_s = time.time()

    def failed(self, seconds: float) -> None:
        """One came to nothing."""
        self._count(Result.FAILED, seconds)

    def cleaned(self) -> None:
        """Nothing of ours is left on the node, and no more passes are made."""
        self.situation = Situation((), (), (), Mode.OFF, (), {})
        self.completed_at_s = None

    def _count(self, result: Result, seconds: float) -> None:
        self.counts[result] += 1
        self.seconds += seconds
