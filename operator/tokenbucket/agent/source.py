"""Where an agent's policies and pods come from: a folder, or the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tokenbucket.core.api.pod import Pod
from tokenbucket.core.api.policy import Mode, Policy
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.desired import Deviation, InForce


@dataclass(frozen=True, slots=True)
class DesiredInput:
    """What should be in force on this node."""

    policies: tuple[Policy, ...] = ()
    pods: tuple[Pod, ...] = ()
    enforcement: Mode = Mode.ENFORCE
    cleanup: bool = False
    """Remove everything of ours from this node, and stay away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did. Not ``complete``: something failed that may work when tried again."""

    actions: int
    complete: bool
    findings: tuple[Deviation, ...]
    in_force: Mapping[SlotKey, InForce]
    """The limits that are attached wherever they should be."""
    fq: bool
    """Whether the kernel can hold packets back."""
    waits: bool = False
    """Something is left to do that nothing but time makes possible, and that no event will tell of."""


class Source(Protocol):
    """Polled by its file descriptor; all its methods are called by the thread of the loop."""

    def fileno(self) -> int:
        """File descriptor that is readable when something may have changed."""

    def drain(self) -> None:
        """Read the changes that made it readable."""

    def reread(self) -> None:
        """Trusts nothing that it remembers: a full pass is about to begin."""

    def wishes(self) -> DesiredInput | None:
        """Return the desired input; None as long as it is unknown: the agent then changes nothing."""

    def passed(self, wishes: DesiredInput, outcome: Outcome) -> None:
        """Record a completed run."""

    def cleaned(self, wishes: DesiredInput) -> None:
        """Record that the node is clean."""

    def close(self) -> None:
        """Close the source."""
