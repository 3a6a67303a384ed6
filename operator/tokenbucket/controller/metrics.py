"""Define and serve the metrics of the controller: policies, by their status, and agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tokenbucket.apiserver.connection import answers
from tokenbucket.controller.objects import PolicyObject
from tokenbucket.controller.run import Controller
from tokenbucket.metrics import (
    API_REQUESTS,
    BUILD_INFO,
    Endpoint,
    Measure,
    Sample,
    registry_of,
    serving,
    single,
)

_STATES = ("degraded", "failed", "matched", "programmed")


@dataclass(frozen=True, slots=True)
class ControllerReading:
    """Values of the controller at one moment."""

    ready: bool
    policies: Sequence[PolicyObject] = ()
    ready_agents: int = 0
    other_agents: int = 0
    api_requests: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Counts by method and status. Status 0 means no response."""


def _reasons(reading: ControllerReading) -> Iterator[Sample]:
    counts = Counter(policy.ready_reason or "Unknown" for policy in reading.policies)
    return (((reason,), count) for reason, count in sorted(counts.items()))


def _pods(reading: ControllerReading) -> Iterator[Sample]:
    for policy in reading.policies:
        pods = policy.status.get("pods") or {}
        for state in _STATES:
            yield (policy.head.namespace, policy.head.name, state), pods.get(state, 0)


OF_THE_CONTROLLER: tuple[Measure[ControllerReading], ...] = (
    BUILD_INFO,
    single(
        "tokenbucket_controller_ready",
        "1 if the controller is healthy and has read all policies, reports and agents.",
        lambda reading: reading.ready,
    ),
    Measure(
        "tokenbucket_agents",
        "Agent pods, by readiness.",
        ("ready",),
        lambda reading: [(("true",), reading.ready_agents), (("false",), reading.other_agents)],
    ),
    Measure(
        "tokenbucket_policies",
        "Policies of the cluster, by the reason of their condition Ready; Unknown without a condition.",
        ("reason",),
        _reasons,
    ),
    Measure(
        "tokenbucket_policy_pods",
        "Pods of a policy by state, as in its status: matched, programmed, degraded, failed.",
        ("namespace", "policy", "state"),
        _pods,
    ),
    API_REQUESTS,
)


def serve(endpoint: Endpoint, controller: Controller) -> AbstractContextManager[None]:
    """Serve metrics for the block."""
    return serving(endpoint, registry_of(OF_THE_CONTROLLER, lambda: read(controller)))


def read(controller: Controller) -> ControllerReading:
    """Return the current values."""
    agents = controller.stores.agents.values()
    ready = sum(agent.ready for agent in agents)
    return ControllerReading(
        controller.ready, controller.stores.policies.values(), ready, len(agents) - ready, answers.counts()
    )
