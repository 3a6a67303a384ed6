"""Define and serve the metrics of the controller: policies, by their status, and agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

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


def _reasons(controller: Controller) -> Iterator[Sample]:
    if not controller.leads:
        return iter(())
    counts = Counter(policy.ready.reason for policy in controller.stores.policies.values())
    return (((reason,), count) for reason, count in sorted(counts.items()))


def _pods(controller: Controller) -> Iterator[Sample]:
    if not controller.leads:
        return
    for policy in controller.stores.policies.values():
        pods = policy.status.get("pods") or {}
        for state in _STATES:
            yield (policy.head.namespace, policy.head.name, state), pods.get(state, 0)


def _agents(controller: Controller) -> Iterator[Sample]:
    if not controller.leads:
        return iter(())
    counts = Counter(agent.ready for agent in controller.stores.agents.values())
    return (((str(ready).lower(),), counts[ready]) for ready in (True, False))


def _ready(controller: Controller) -> Iterator[Sample]:
    if controller.leads:
        for policy in controller.stores.policies.values():
            ready = policy.ready
            labels = (policy.head.namespace, policy.head.name, ready.status, ready.reason)
            yield labels, 1


def _without_agent(controller: Controller) -> set[str]:
    """Return the nodes that had an agent and have none."""
    stores = controller.stores
    ready = {node.name for node in stores.nodes.values() if node.ready}
    reported = {report.name for report in stores.reports.values()}
    return ready & reported - {agent.node for agent in stores.agents.values()}


def _number_without_agent(controller: Controller) -> int | None:
    return len(_without_agent(controller)) if controller.leads else None


def _unavailable(controller: Controller) -> Iterator[Sample]:
    if not controller.leads:
        return iter(())
    agents = controller.stores.agents.values()
    not_ready = {(agent.node, "NotReady") for agent in agents if not agent.ready}
    absent = {(node, "NoPod") for node in _without_agent(controller)}
    return ((labels, 1) for labels in sorted(not_ready | absent))


OF_THE_CONTROLLER: tuple[Measure[Controller], ...] = (
    BUILD_INFO,
    single(
        "tokenbucket_controller_ready",
        "1 if the controller is healthy and has read all policies, reports and agents.",
        lambda controller: controller.ready,
    ),
    single(
        "tokenbucket_controller_leader",
        "1 if this replica writes the statuses. Only the leader exports the metrics of policies and agents.",
        lambda controller: controller.leads,
    ),
    Measure(
        "tokenbucket_agents",
        "Agent pods, by readiness.",
        ("ready",),
        _agents,
    ),
    single(
        "tokenbucket_nodes_without_agent",
        "Ready nodes with a TokenBucketNode and without an agent pod.",
        _number_without_agent,
    ),
    Measure(
        "tokenbucket_agent_unavailable",
        "1 for each node whose agent pod is not ready (NotReady), or that had one and has none (NoPod).",
        ("node", "reason"),
        _unavailable,
    ),
    Measure(
        "tokenbucket_policies",
        "Policies of the cluster, by the reason of their condition Ready; Unknown without a condition.",
        ("reason",),
        _reasons,
    ),
    Measure(
        "tokenbucket_policy_ready",
        "1 for each policy, with the status and the reason of its condition Ready.",
        ("namespace", "policy", "status", "reason"),
        _ready,
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
    return serving(endpoint, registry_of(OF_THE_CONTROLLER, lambda: controller))
