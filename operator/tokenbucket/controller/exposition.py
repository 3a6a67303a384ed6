"""The controller's metrics: what its stores hold when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from tokenbucket import __version__
from tokenbucket.controller.objects import PolicyObject
from tokenbucket.controller.run import Controller
from tokenbucket.kubernetes.connection import answers
from tokenbucket.metrics.controller import OF_THE_CONTROLLER, ControllerReading, PolicyReading
from tokenbucket.metrics.measure import registry_of
from tokenbucket.metrics.server import serving

_STATES = ("matched", "programmed", "degraded", "failed")


def serve(address: tuple[str, int], controller: Controller) -> AbstractContextManager[None]:
    """Answers at that host and port for the block."""
    return serving(*address, registry_of(OF_THE_CONTROLLER, lambda: _read(controller)))


def _read(controller: Controller) -> ControllerReading:
    agents = controller.agents.values()
    ready = sum(agent.ready for agent in agents)
    return ControllerReading(
        version=__version__,
        ready=controller.ready,
        policies=[_policy(policy) for policy in controller.policies.values()],
        ready_agents=ready,
        other_agents=len(agents) - ready,
        api_requests=answers.counts(),
    )


def _policy(policy: PolicyObject) -> PolicyReading:
    """What its status says, which another version may have written."""
    conditions = policy.status.get("conditions") or ()
    reasons = [str(each.get("reason") or "") for each in conditions if each.get("type") == "Ready"]
    counts = policy.status.get("pods")
    pods = counts if isinstance(counts, Mapping) else {}
    return PolicyReading(
        policy.head.namespace,
        policy.head.name,
        reasons[0] if reasons else "",
        {state: int(pods.get(state) or 0) for state in _STATES},
    )
