"""The status of a limit's policy, compared with the flows through the limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e_cilium.laboratory import Laboratory
from tests.e2e_cilium.limits import FAR, HOST, LIMITS, NEAR, Limit
from tests.e2e_cilium.measurement import measure

TRUE_WITHIN_S = 10.0
_NOT_RUNNING = ("Shadowed on", "Bypassed on", "Contended on")
_ORDER = (HOST, NEAR, FAR)
"""The node first: its packets can pass a hook that those of pods do not pass, and so clear a reason."""


@dataclass(frozen=True, slots=True)
class Leak:
    """More passed than a limit allows."""

    peer: str
    excess: str
    reported_after_s: float | None
    """Time from the end of the flow until the status said so; ``None`` if it did not in time."""


def not_in_force(lab: Laboratory, limit: Limit) -> str:
    """Return why the limit is not enforced, from the status; empty if it is enforced."""
    ready = lab.ready(limit)
    return "" if ready.get("status") == "True" else str(ready.get("message", "no status"))


def leaks(lab: Laboratory, limit: Limit) -> list[Leak]:
    """Send through a limit, from or to each peer, and wait each time until the status is true."""
    return [
        Leak(peer, excess, _reported_after_s(lab, limit))
        for peer in _ORDER
        if (excess := measure(lab, limit, peer).excess())
    ]


def wrong_statuses(lab: Laboratory, limits: Sequence[Limit] = LIMITS) -> dict[str, str]:
    """Return the limits whose status is not true, and why.

    The status of a limit through which more passes than it allows names a reason. That of a limit that
    holds has none.
    """
    found = {limit: leaks(lab, limit) for limit in limits}
    unreported = {
        str(limit): f"enforced, but {each.peer}: {each.excess}"
        for limit, passed in found.items()
        for each in passed
        if each.reported_after_s is None
    }
    false = {str(limit): not_in_force(lab, limit) for limit, passed in found.items() if not passed}
    return unreported | {name: message for name, message in false.items() if message}


def _reported_after_s(lab: Laboratory, limit: Limit) -> float | None:
    begin_s = time.monotonic()
    while (passed_s := time.monotonic() - begin_s) < TRUE_WITHIN_S:
        if any(reason in not_in_force(lab, limit) for reason in _NOT_RUNNING):
            return passed_s
        time.sleep(0.2)
    return None
