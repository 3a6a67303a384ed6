"""Define the metrics of an agent: the limits of its node, and its own state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tokenbucket.core.api.node_report import PodReport
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Mode
from tokenbucket.core.limits.slot import Slot
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.metrics.api import API_REQUESTS
from tokenbucket.metrics.measure import Measure, Sample, alone

_LIMIT = ("namespace", "pod", "policy", "direction")


@dataclass(frozen=True, slots=True)
class AgentReading:
    """Values of an agent at one moment. Times are Unix times in seconds, or ``None``."""

    version: str
    ready: bool
    enforcement: Mode
    passes: Mapping[str, int]
    """Number of reconcile runs by result."""
    pass_seconds: float
    passed_at_s: float | None
    in_force: int
    findings: Mapping[Reason, int]
    """Number of limits that are not enforced as declared, by reason."""
    slots: int = 0
    slots_in_use: int = 0
    unmetered_packets: int = 0
    pods: Sequence[PodReport] = ()
    """Limits that are not enforced as declared."""
    limits: Sequence[tuple[Slot, Stats]] = ()
    """The slots in use."""
    reported_at_s: float | None = None
    api_requests: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Counts by method and status. Status 0 means no response."""


def _reasons(reading: AgentReading) -> Iterator[Sample]:
    return (((reason.value, reason.effect.value), reading.findings.get(reason, 0)) for reason in Reason)


def _modes(reading: AgentReading) -> Iterator[Sample]:
    return (((mode.value,), mode is reading.enforcement) for mode in Mode)


def _each_limit(value: Callable[[Slot, Stats], float | None]) -> Callable[[AgentReading], Iterator[Sample]]:
    """Return one sample for each pod limit with a value.

    A recreated pod may have two slots for a moment, but Prometheus rejects duplicate samples.
    """

    def samples(reading: AgentReading) -> Iterator[Sample]:
        found: dict[tuple[str, ...], float] = {}
        for slot, stats in reading.limits:
            key = slot.owner.key
            if isinstance(key.subject, PodId) and (number := value(slot, stats)) is not None:
                pod = key.subject
                found[pod.namespace, pod.name, slot.owner.policy, key.direction.value] = number
        return iter(found.items())

    return samples


def _not_as_declared(reading: AgentReading) -> Iterator[Sample]:
    found = {(each.namespace, each.name, each.policy, each.direction, each.reason) for each in reading.pods}
    return ((labels, 1) for labels in sorted(found))


def _where_delayed(value: Callable[[Stats], float]) -> Callable[[Slot, Stats], float | None]:
    """Return the value for limits that delay packets, or did so before a change."""
    return lambda slot, stats: value(stats) if slot.config.max_delay_q or stats.delayed_packets else None


def _where_marked(slot: Slot, stats: Stats) -> float | None:
    return stats.marked_packets if slot.config.dscp is not None or stats.marked_packets else None


def _where_forwarded(slot: Slot, stats: Stats) -> float | None:
    forwards = slot.config.observe or slot.config.dscp is not None
    return stats.forwarded_packets if forwards or stats.forwarded_packets else None


OF_THE_AGENT: tuple[Measure[AgentReading], ...] = (
    Measure(
        "tokenbucket_build_info",
        "Always 1; the version of the agent or the controller.",
        ("version",),
        lambda reading: [((reading.version,), 1)],
    ),
    Measure(
        "tokenbucket_agent_ready",
        "1 if the agent is healthy, has reconciled and, in a cluster, has reported. Like its probe.",
        (),
        alone(lambda reading: reading.ready),
    ),
    Measure(
        "tokenbucket_agent_enforcement",
        "1 for the enforcement mode of this node, 0 for the other modes.",
        ("mode",),
        _modes,
    ),
    Measure(
        "tokenbucket_agent_reconciles_total",
        "Reconcile runs of the agent, by result: complete, incomplete (retried), failed.",
        ("result",),
        lambda reading: (((result,), count) for result, count in reading.passes.items()),
    ),
    Measure(
        "tokenbucket_agent_reconcile_seconds_total",
        "Duration of all reconcile runs.",
        (),
        alone(lambda reading: reading.pass_seconds),
    ),
    Measure(
        "tokenbucket_agent_last_reconcile_timestamp_seconds",
        "Unix time of the end of the last complete reconcile run. At least one run per minute.",
        (),
        alone(lambda reading: reading.passed_at_s),
    ),
    Measure(
        "tokenbucket_agent_report_timestamp_seconds",
        "Unix time at which the TokenBucketNode of the node was last known to be up to date.",
        (),
        alone(lambda reading: reading.reported_at_s),
    ),
    Measure(
        "tokenbucket_limits_active",
        "Limits that are attached on this node, one per pod and direction.",
        (),
        alone(lambda reading: reading.in_force),
    ),
    Measure(
        "tokenbucket_limits_not_as_declared",
        "Limits that are not enforced as declared on this node, by reason and its effect.",
        ("reason", "effect"),
        _reasons,
    ),
    Measure(
        "tokenbucket_slots",
        "Capacity of this node: maximum number of limits.",
        (),
        alone(lambda reading: reading.slots),
    ),
    Measure(
        "tokenbucket_slots_in_use",
        "Slots in use on this node, including limits that were attached manually.",
        (),
        alone(lambda reading: reading.slots_in_use),
    ),
    Measure(
        "tokenbucket_unmetered_packets_total",
        "Packets that were not limited because their filter refers to an unused slot.",
        (),
        alone(lambda reading: reading.unmetered_packets),
    ),
    API_REQUESTS,
)

OF_THE_PODS: tuple[Measure[AgentReading], ...] = (
    Measure(
        "tokenbucket_pod_admitted_bytes_total",
        "Wire bytes that were admitted: forwarded at once or later, marked, or observed.",
        _LIMIT,
        _each_limit(lambda _, stats: stats.admitted_bytes),
    ),
    Measure(
        "tokenbucket_pod_admitted_packets_total",
        "Wire packets that were admitted.",
        _LIMIT,
        _each_limit(lambda _, stats: stats.admitted_packets),
    ),
    Measure(
        "tokenbucket_pod_dropped_bytes_total",
        "Wire bytes that exceeded the limit and were dropped.",
        _LIMIT,
        _each_limit(lambda _, stats: stats.dropped_bytes),
    ),
    Measure(
        "tokenbucket_pod_dropped_packets_total",
        "Wire packets that exceeded the limit and were dropped.",
        _LIMIT,
        _each_limit(lambda _, stats: stats.dropped_packets),
    ),
    Measure(
        "tokenbucket_pod_delayed_packets_total",
        "Admitted excess packets of a limit with Delay, including small packets, which leave at once.",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.delayed_packets)),
    ),
    Measure(
        "tokenbucket_pod_delay_seconds_total",
        "Sum of the delays of all packets.",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.delayed_ns / 1e9)),
    ),
    Measure(
        "tokenbucket_pod_congestion_marked_packets_total",
        "Delayed packets that got an ECN mark (CE).",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.ce_packets)),
    ),
    Measure(
        "tokenbucket_pod_marked_packets_total",
        "Admitted excess packets that got the code point of `dscp`.",
        _LIMIT,
        _each_limit(_where_marked),
    ),
    Measure(
        "tokenbucket_pod_forwarded_packets_total",
        "Admitted excess packets that were marked or only observed.",
        _LIMIT,
        _each_limit(_where_forwarded),
    ),
    Measure(
        "tokenbucket_pod_rate_bytes_per_second",
        "Declared rate in bytes. Utilization is the rate of admitted bytes divided by this value.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.bits_per_s / 8 or None),
    ),
    Measure(
        "tokenbucket_pod_burst_bytes",
        "Burst in bytes, declared or computed.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.burst_bytes or None),
    ),
    Measure(
        "tokenbucket_pod_rate_packets_per_second",
        "Declared rate in packets.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.packets_per_s or None),
    ),
    Measure(
        "tokenbucket_pod_burst_packets",
        "Burst in packets, declared or computed.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.burst_packets or None),
    ),
    Measure(
        "tokenbucket_pod_not_as_declared",
        "1 for each limit of a pod that is not enforced as declared.",
        (*_LIMIT, "reason"),
        _not_as_declared,
    ),
)
