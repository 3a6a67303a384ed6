"""The agent's metrics: read from the kernel's maps and from the loop at each scrape.

Import this module only to serve metrics, because a standalone agent needs its libraries for nothing else.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

from tokenbucket.agent.options import MetricsOptions
from tokenbucket.agent.policy_metrics import OF_THE_POLICIES, PolicyReading, PolicyTotals
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.api.enforcement import ModeSource
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.limits.slot import NO_SLOT, Role, Slot, SlotConfig
from tokenbucket.core.limits.stats import EXPOSED, Exposed, Stats
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.core.status.node_status import NodeState, pods_not_programmed
from tokenbucket.errors import IgnoreErrno
from tokenbucket.metrics import (
    API_REQUESTS,
    BUILD_INFO,
    Endpoint,
    Measure,
    Sample,
    distribution,
    registry_of,
    serving,
    single,
)

_LIMIT = ("namespace", "pod", "policy", "direction")


@dataclass(frozen=True, slots=True)
class AgentReading:
    """Values of an agent at one moment."""

    stats: ReconcileStats
    ready: bool
    reported_at_s: float | None = None
    """Unix time in seconds, or ``None``."""
    api_requests: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Counts by method and status. Status 0 means no response."""
    contacts: Mapping[str, float | None] = field(default_factory=dict)
    """Unix time in seconds of the last contact of each watch."""
    slots: int = 0
    unmetered_packets: int = 0
    limits: Sequence[tuple[Slot, Stats]] = ()
    """The slots in use."""
    policies: PolicyReading = field(default_factory=PolicyReading)

    @property
    def state(self) -> NodeState:
        """Return the state after the last reconcile run."""
        return self.stats.state or NodeState()


def _reasons(reading: AgentReading) -> Iterator[Sample]:
    counts = Counter(deviation.reason for deviation in reading.state.outcome.deviations)
    return (((reason.value, reason.effect.value), counts[reason]) for reason in Reason)


def _modes(reading: AgentReading) -> Iterator[Sample]:
    return (((mode.value,), mode is reading.state.inputs.enforcement) for mode in Mode)


def _places(reading: AgentReading) -> Iterator[Sample]:
    return (((place.value,), place is reading.state.inputs.enforcement_from) for place in ModeSource)


def _runs(reading: AgentReading) -> Iterator[Sample]:
    return (((result.value,), count) for result, count in reading.stats.counts.items())


def _not_as_declared(reading: AgentReading) -> Iterator[Sample]:
    pods = pods_not_programmed(reading.state)
    found = {(pod.namespace, pod.name, pod.policy, pod.direction, pod.reason) for pod in pods}
    return ((labels, 1) for labels in sorted(found))


def _contacts(reading: AgentReading) -> Iterator[Sample]:
    return (((resource,), at_s) for resource, at_s in sorted(reading.contacts.items()) if at_s)


def _per_limit(
    name: str,
    meaning: str,
    value: Callable[[SlotConfig, Stats], float | None],
    role: Role = Role.LIMIT,
) -> Measure[AgentReading]:
    """Return a metric with one sample for each pod limit that has a value: its own, or its guard's.

    A recreated pod may have two slots for a moment, but Prometheus rejects duplicate samples.
    """

    def samples(reading: AgentReading) -> Iterator[Sample]:
        found: dict[tuple[str, ...], float] = {}
        for slot, stats in reading.limits:
            key = slot.owner.key
            if key.role is not role:
                continue
            if isinstance(key.subject, PodId) and (number := value(slot.config, stats)) is not None:
                pod = key.subject
                found[pod.namespace, pod.name, slot.owner.policy, key.direction.value] = number
        return iter(found.items())

    return Measure(name, meaning, _LIMIT, samples)


def _counter(exposed: Exposed) -> Measure[AgentReading]:
    """Return the metric of a counter. Limits to which it does not apply have no sample."""

    def value(config: SlotConfig, stats: Stats) -> float | None:
        return exposed.value(stats) / exposed.per_unit if exposed.applies(config, stats) else None

    return _per_limit(exposed.metric_name, exposed.meaning, value)


OF_THE_AGENT: tuple[Measure[AgentReading], ...] = (
    BUILD_INFO,
    single(
        "tokenbucket_agent_ready",
        "1 if the readiness probe succeeds: the agent has reconciled and, in a cluster, has reported.",
        lambda reading: reading.ready,
    ),
    Measure(
        "tokenbucket_agent_enforcement",
        "1 for the enforcement mode of this node, 0 for the other modes.",
        ("mode",),
        _modes,
    ),
    Measure(
        "tokenbucket_agent_enforcement_source",
        "1 for the place that sets the enforcement mode: node label, override or release ConfigMap.",
        ("source",),
        _places,
    ),
    Measure(
        "tokenbucket_agent_reconciles_total",
        "Reconcile runs of the agent, by result: complete, incomplete (retried), failed.",
        ("result",),
        _runs,
    ),
    single(
        "tokenbucket_agent_reconcile_seconds_total",
        "Duration of all reconcile runs.",
        lambda reading: reading.stats.seconds,
    ),
    distribution(
        "tokenbucket_agent_change_latency_seconds",
        "Time from the receipt of the oldest change of a reconcile run until a run ends without an error.",
        lambda reading: reading.stats.latencies,
    ),
    single(
        "tokenbucket_agent_oldest_pending_seconds",
        "Age of the oldest pending or failing limit, or of the oldest unapplied change; 0 without any.",
        lambda reading: reading.stats.oldest_pending_s,
    ),
    single(
        "tokenbucket_agent_last_reconcile_timestamp_seconds",
        "Unix time of the end of the last complete reconcile run. At least one run per minute.",
        lambda reading: reading.stats.completed_at_s,
    ),
    single(
        "tokenbucket_agent_report_timestamp_seconds",
        "Unix time at which the API server last accepted the report of the agent.",
        lambda reading: reading.reported_at_s,
    ),
    Measure(
        "tokenbucket_watch_last_contact_timestamp_seconds",
        "Unix time at which the agent last received a list, an event or a bookmark from the API server.",
        ("resource",),
        _contacts,
    ),
    single(
        "tokenbucket_limits_active",
        "Limits that are attached on this node, one per pod and direction.",
        lambda reading: len(reading.state.outcome.active),
    ),
    Measure(
        "tokenbucket_limits_not_as_declared",
        "Limits that are not enforced as declared on this node, by reason and its effect.",
        ("reason", "effect"),
        _reasons,
    ),
    single(
        "tokenbucket_slots",
        "Capacity of this node: maximum number of limits and guards.",
        lambda reading: reading.slots,
    ),
    single(
        "tokenbucket_slots_in_use",
        "Slots in use on this node, including guards, and limits that were attached manually.",
        lambda reading: len(reading.limits),
    ),
    single(
        "tokenbucket_unmetered_packets_total",
        "Packets that were not limited because their filter refers to an unused slot.",
        lambda reading: reading.unmetered_packets,
    ),
    API_REQUESTS,
)

OF_THE_PODS: tuple[Measure[AgentReading], ...] = (
    *(_counter(exposed) for exposed in EXPOSED if exposed.metric),
    _per_limit(
        "tokenbucket_pod_rate_bytes_per_second",
        "Declared rate in bytes. Utilization is the rate of admitted bytes divided by this value.",
        lambda config, _: config.bits_per_s / 8 or None,
    ),
    _per_limit(
        "tokenbucket_pod_burst_bytes",
        "Burst in bytes, declared or computed.",
        lambda config, _: config.burst_bytes or None,
    ),
    _per_limit(
        "tokenbucket_pod_rate_packets_per_second",
        "Declared rate in packets.",
        lambda config, _: config.packets_per_s or None,
    ),
    _per_limit(
        "tokenbucket_pod_burst_packets",
        "Burst in packets, declared or computed.",
        lambda config, _: config.burst_packets or None,
    ),
    _per_limit(
        "tokenbucket_pod_guard_dropped_packets_total",
        "Wire packets that bypassed a limit inside the pod, and that its guard on the node dropped.",
        lambda _, stats: stats.dropped_packets,
        Role.GUARD,
    ),
    Measure(
        "tokenbucket_pod_not_as_declared",
        "1 for each limit of a pod that is not enforced as declared.",
        (*_LIMIT, "reason"),
        _not_as_declared,
    ),
)


@dataclass(frozen=True, slots=True)
class Exposition:
    """Sources of the metrics."""

    pins: Pins
    stats: ReconcileStats
    ready: Callable[[], bool]
    reported_at_s: Callable[[], float | None] = lambda: None
    api_requests: Callable[[], Mapping[tuple[str, int], int]] = dict
    contacts: Callable[[], Mapping[str, float | None]] = dict

    def serve(self, options: MetricsOptions) -> AbstractContextManager[None]:
        """Serve metrics for the block."""
        if options.per_pod:
            registry = registry_of(OF_THE_AGENT + OF_THE_PODS, self.read)
        else:
            registry = registry_of(
                OF_THE_AGENT + OF_THE_POLICIES, partial(self._with_policies, PolicyTotals())
            )
        return serving(Endpoint(options.host, options.port, options.tls), registry)

    def _with_policies(self, totals: PolicyTotals) -> AgentReading:
        reading = self.read()
        return replace(reading, policies=totals.read(reading.limits, reading.state))

    def read(self) -> AgentReading:
        """Read the current values. Raises KernelError, and LoadError if other programs own the pins."""
        reading = AgentReading(
            self.stats, self.ready(), self.reported_at_s(), self.api_requests(), self.contacts()
        )
        with IgnoreErrno(errno.ENOENT), Slots(self.pins) as slots:  # ENOENT: nothing is loaded
            return replace(
                reading,
                slots=slots.count - 1,  # slot 0 is never in use
                unmetered_packets=slots.stats(NO_SLOT).unmetered_packets,
                limits=slots.read_with_stats(),
            )
        return reading
