"""The effects of reasons on limits."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Effect(enum.StrEnum):
    """The state of a limit that has a reason. The values are labels of metrics."""

    PENDING = "pending"
    """The limit is not enforced yet. The agent enforces it without manual action."""
    DEGRADED = "degraded"
    """The limit is enforced, but not as declared: excess packets are dropped, no guard runs, or another
    component also limits the pod."""
    EXEMPT = "exempt"
    """Limits do not apply to the pod. This is intended."""
    FAILED = "failed"
    """The limit is not enforced on all traffic of the pod, until an administrator removes the cause."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The attributes of a reason."""

    effect: Effect
    cause: str
    """The cause, for the reference page."""
    fix: str
    """The action that removes the cause, for the reference page."""
    short: str = ""
    """The text in the status field ``action``, such as "no fq". Empty unless the effect is DEGRADED."""
    needs_slot: bool = True
    """Whether the limit keeps a slot, and so its tokens, while the agent finds no interface of the pod."""
