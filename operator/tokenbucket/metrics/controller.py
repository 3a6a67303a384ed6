"""Define the metrics of the controller: policies, by their status, and agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tokenbucket.metrics.api import API_REQUESTS
from tokenbucket.metrics.measure import Measure, Sample, alone


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """Values from the status of a policy."""

    namespace: str
    name: str
    reason: str
    """Reason of the condition Ready, or empty."""
    pods: Mapping[str, int]
    """By state: matched, programmed, degraded, failed."""


@dataclass(frozen=True, slots=True)
class ControllerReading:
    """Values of the controller at one moment."""

    version: str
    ready: bool
    policies: Sequence[PolicyReading] = ()
    ready_agents: int = 0
    other_agents: int = 0
    api_requests: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Counts by method and status. Status 0 means no response."""


def _reasons(reading: ControllerReading) -> Iterator[Sample]:
    counts = Counter(policy.reason or "Unknown" for policy in reading.policies)
    return (((reason,), count) for reason, count in sorted(counts.items()))


def _pods(reading: ControllerReading) -> Iterator[Sample]:
    return (
        ((policy.namespace, policy.name, state), count)
        for policy in reading.policies
        for state, count in sorted(policy.pods.items())
    )


OF_THE_CONTROLLER: tuple[Measure[ControllerReading], ...] = (
    Measure(
        "tokenbucket_build_info",
        "Always 1; the version of the agent or the controller.",
        ("version",),
        lambda reading: [((reading.version,), 1)],
    ),
    Measure(
        "tokenbucket_controller_ready",
        "1 if the controller is healthy and has read all policies, reports and agents.",
        (),
        alone(lambda reading: reading.ready),
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
