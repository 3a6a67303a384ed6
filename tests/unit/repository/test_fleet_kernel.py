"""The kernel in memory of the agents of ``make bench-fleet``."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address

from bench.fleet_kernel import Slots, loop

from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Policy, Rate
from tokenbucket.core.api.selector import Selector
from tokenbucket.core.status.node_status import DesiredInput


def inputs(pods: int, generation: int = 1) -> DesiredInput:
    """Return a number of pods that one policy limits in both directions."""
    limit = Limit(Rate(bits_per_s=generation * 10**6), exceed_action=ExceedAction.DROP)
    limits = {Direction.INGRESS: limit, Direction.EGRESS: limit}
    return DesiredInput(
        policies=(Policy("fleet", "all", Selector(), limits, generation=generation),),
        pods=tuple(
            Pod(PodId("fleet", f"pod-{number}"), {}, frozenset({ip_address(f"10.0.0.{number}")}))
            for number in range(1, pods + 1)
        ),
    )


def test_the_reconciler_settles_on_the_kernel_in_memory() -> None:
    """Attach, change and remove limits. A periodic check finds nothing to do."""
    steps = [(inputs(3), 12), (inputs(3), 0), (inputs(3, generation=2), 6), (inputs(1, generation=2), 8)]
    slots = Slots()
    made = loop(None, slots, ReconcileStats())
    with closing(made.signals), closing(made.monitor):
        for given, actions in steps:
            outcome = made.reconciler.reconcile(given)
            assert (outcome.actions, outcome.complete, outcome.deviations) == (actions, True, ())
        made.reconciler.resync()
        made._check_periodically()
        assert made.reconciler.reconcile(inputs(1, generation=2)).complete
    assert slots.written.keys() == {("all", 1), ("all", 2)}
