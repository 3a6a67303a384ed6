"""Detection of bypassed limits inside pods and of their guards, by programs and counters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tokenbucket.agent.verification import Verifier
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface
from tokenbucket.core.planning.bypass import Amount, Counted
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.reasons import Reason

LIMIT = SlotKey(PodId("shop", "web"), Direction.EGRESS)
POINTS = {
    LIMIT: {HookPoint(Interface(2, 4026532000), Hook.EGRESS)},
    LIMIT.guard: {HookPoint(Interface(7), Hook.INGRESS)},
}


def verifier(*attached: SlotKey, seen_by_limit: int, seen_by_guard: int) -> Verifier:
    """Return a verifier after three readings, between which the pod sent 1000 packets each time."""
    slots: Any = SimpleNamespace()
    verifier = Verifier(slots, slots, _points={key: POINTS[key] for key in attached})
    seen = {LIMIT: seen_by_limit, LIMIT.guard: seen_by_guard}
    for share in range(3):
        verifier.bypass.compare(
            {key: Counted(Amount(1000 * share), Amount(seen[key] * share)) for key in attached}
        )
    verifier._suspects = dict.fromkeys(verifier.bypass.bypassed, frozenset())
    return verifier


def found(verifier: Verifier) -> list[tuple[SlotKey, Reason]]:
    """Return the deviations, as the agent reports them."""
    deviations: list[Deviation] = verifier.deviations(POINTS.keys())
    return [(each.of_limit.key, each.of_limit.reason) for each in deviations]


def test_a_limit_that_its_pod_bypasses_is_enforced_by_its_guard() -> None:
    """Use packet sockets, for example. The guard drops the excess, which is a degradation."""
    bypassing = verifier(LIMIT, LIMIT.guard, seen_by_limit=0, seen_by_guard=1000)
    assert found(bypassing) == [(LIMIT, Reason.BYPASSED_IN_POD)]
    assert bypassing.not_running == frozenset()
    assert bypassing.bypassed_directions == set(), "no limit of another pod moves into its pod"


def test_a_guard_that_packets_bypass_leaves_its_limit_enforced() -> None:
    """Report that nothing bounds the pod if it stops to cooperate."""
    unguarded = verifier(LIMIT, LIMIT.guard, seen_by_limit=1000, seen_by_guard=0)
    assert found(unguarded) == [(LIMIT, Reason.NO_GUARD)]
    assert LIMIT not in unguarded.not_running
    assert unguarded.bypassed_directions == {Direction.EGRESS}


@pytest.mark.parametrize("attached", [(LIMIT,), (LIMIT, LIMIT.guard)])
def test_a_bypassed_limit_without_a_running_guard_is_not_enforced(attached: tuple[SlotKey, ...]) -> None:
    """Remove the guard, or let packets bypass it too."""
    bypassed = verifier(*attached, seen_by_limit=0, seen_by_guard=0)
    assert (LIMIT, Reason.BYPASSED) in found(bypassed)
    assert LIMIT in bypassed.not_running


def test_a_limit_and_a_guard_that_run_have_no_reason() -> None:
    """Send traffic that passes both."""
    assert found(verifier(LIMIT, LIMIT.guard, seen_by_limit=1000, seen_by_guard=1000)) == []
