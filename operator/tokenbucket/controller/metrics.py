"""Serve the metrics of the controller, read from its stores."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tokenbucket import __version__
from tokenbucket.apiserver.connection import answers
from tokenbucket.controller.objects import PolicyObject
from tokenbucket.controller.run import Controller
from tokenbucket.metrics.controller import OF_THE_CONTROLLER, ControllerReading, PolicyReading
from tokenbucket.metrics.measure import registry_of
from tokenbucket.metrics.server import serving

_STATES = ("matched", "programmed", "degraded", "failed")


def serve(address: tuple[str, int], controller: Controller) -> AbstractContextManager[None]:
    """Serve metrics at a host and port for the block."""
    return serving(*address, registry_of(OF_THE_CONTROLLER, lambda: read(controller)))


def read(controller: Controller) -> ControllerReading:
    """Return the current values."""
    agents = controller.stores.agents.values()
    ready = sum(agent.ready for agent in agents)
    return ControllerReading(
        version=__version__,
        ready=controller.ready,
        policies=[_policy(policy) for policy in controller.stores.policies.values()],
        ready_agents=ready,
        other_agents=len(agents) - ready,
        api_requests=answers.counts(),
    )


def _policy(policy: PolicyObject) -> PolicyReading:
    """Return the counts and the reason from the status of a policy."""
    conditions = policy.status.get("conditions") or ()
    reason = next((each["reason"] for each in conditions if each["type"] == "Ready"), "")
    pods = policy.status.get("pods") or {}
    counts = {state: pods.get(state, 0) for state in _STATES}
    return PolicyReading(policy.head.namespace, policy.head.name, reason, counts)
