"""The cause for which a pod, or one direction of it, has its state."""

from __future__ import annotations

from dataclasses import dataclass

from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.plugin.explain.codes import Code, State


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a pod or one direction of it has its state."""

    code: str
    """A ``Code``, a ``Reason``, or the reason of an agent of another version."""
    state: State
    meaning: str
    fix: str
    detail: str = ""
    direction: str = ""
    """Empty for a cause that concerns the whole pod."""
    policy: str = ""


def cause(code: Code, detail: str = "", *, direction: str = "", policy: str = "") -> Cause:
    """Return the cause with this code."""
    return Cause(code.value, code.state, code.meaning, code.fix, detail, direction, policy)


_REASONS = {str(reason): reason for reason in Reason}
_STATES = {
    Effect.PENDING: State.PENDING,
    Effect.DEGRADED: State.DEVIATES,
    Effect.EXEMPT: State.NOT_LIMITED,
    Effect.FAILED: State.DEVIATES,
}


def cause_of_reason(name: str, detail: str = "", *, direction: str = "", policy: str = "") -> Cause:
    """Return the cause for a reason that an agent reports. Its version can differ from this one."""
    reason = _REASONS.get(name)
    if not reason:
        meaning = "The agent has another version than this command, and reports an unknown reason."
        fix = "Read the detail. Use the version of this command that fits the agent."
        return Cause(name, State.DEVIATES, meaning, fix, detail, direction, policy)
    state = _STATES[reason.effect]
    return Cause(reason.value, state, reason.cause, reason.fix, detail, direction, policy)
