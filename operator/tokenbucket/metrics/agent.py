"""The metrics of an agent: its node's limits, and itself."""

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
    """What an agent knows at one moment. Times are of Unix, in seconds; ``None`` where there was none yet."""

    version: str
    ready: bool
    enforcement: Mode
    passes: Mapping[str, int]
    """How many ended how."""
    pass_seconds: float
    passed_at_s: float | None
    in_force: int
    findings: Mapping[Reason, int]
    """How many limits are not in force as declared, by reason."""
    slots: int = 0
    slots_in_use: int = 0
    unmetered_packets: int = 0
    pods: Sequence[PodReport] = ()
    """The limits that are not in force as declared."""
    limits: Sequence[tuple[Slot, Stats]] = ()
    """The slots in use."""
    reported_at_s: float | None = None
    api_requests: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """By method and status; 0 where no answer came."""


def _reasons(reading: AgentReading) -> Iterator[Sample]:
    return (((reason.value, reason.effect.value), reading.findings.get(reason, 0)) for reason in Reason)


def _modes(reading: AgentReading) -> Iterator[Sample]:
    return (((mode.value,), mode is reading.enforcement) for mode in Mode)


def _each_limit(value: Callable[[Slot, Stats], float | None]) -> Callable[[AgentReading], Iterator[Sample]]:
    """One sample for each limit of a pod that has a value. A pod that was made anew under its name may for a
    moment have two slots, and Prometheus wants one.
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
    """Only for limits that delay, or did before they were changed."""
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
        "1 where the agent is well, has made a pass and, in a cluster, has reported: what its probe says.",
        (),
        alone(lambda reading: reading.ready),
    ),
    Measure(
        "tokenbucket_agent_enforcement",
        "1 for the mode that the kill switch has on this node, 0 for the others.",
        ("mode",),
        _modes,
    ),
    Measure(
        "tokenbucket_agent_passes_total",
        "Reconcile runs of the agent, by result: complete, incomplete (retried), failed.",
        ("result",),
        lambda reading: (((result,), count) for result, count in reading.passes.items()),
    ),
    Measure(
        "tokenbucket_agent_pass_seconds_total",
        "Time that the passes took.",
        (),
        alone(lambda reading: reading.pass_seconds),
    ),
    Measure(
        "tokenbucket_agent_last_pass_timestamp_seconds",
        "When the last complete pass ended, in Unix time. There is one each minute at least.",
        (),
        alone(lambda reading: reading.passed_at_s),
    ),
    Measure(
        "tokenbucket_agent_report_timestamp_seconds",
        "When the node's TokenBucketNode was last known to say what is the case, in Unix time.",
        (),
        alone(lambda reading: reading.reported_at_s),
    ),
    Measure(
        "tokenbucket_limits_in_force",
        "Limits, of one pod and direction each, that are attached on this node.",
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
        "Limits that this node has room for.",
        (),
        alone(lambda reading: reading.slots),
    ),
    Measure(
        "tokenbucket_slots_in_use",
        "Limits that have their room on this node, those attached by hand too.",
        (),
        alone(lambda reading: reading.slots_in_use),
    ),
    Measure(
        "tokenbucket_unmetered_packets_total",
        "Packets that passed unlimited because their filter named no slot in use.",
        (),
        alone(lambda reading: reading.unmetered_packets),
    ),
    API_REQUESTS,
)

OF_THE_PODS: tuple[Measure[AgentReading], ...] = (
    Measure(
        "tokenbucket_pod_admitted_bytes_total",
        "Wire bytes that were let through, at once or later, marked or observed.",
        _LIMIT,
        _each_limit(lambda _, stats: stats.admitted_bytes),
    ),
    Measure(
        "tokenbucket_pod_admitted_packets_total",
        "Wire packets that were let through.",
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
        "Of those admitted, packets that exceeded the limit and had to wait, or were too small to need to.",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.delayed_packets)),
    ),
    Measure(
        "tokenbucket_pod_delay_seconds_total",
        "Time that packets were made to wait, summed over them.",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.delayed_ns / 1e9)),
    ),
    Measure(
        "tokenbucket_pod_congestion_marked_packets_total",
        "Of those delayed, packets that got the ECN mark.",
        _LIMIT,
        _each_limit(_where_delayed(lambda stats: stats.ce_packets)),
    ),
    Measure(
        "tokenbucket_pod_marked_packets_total",
        "Of those admitted, packets that exceeded the limit and got the code point of `dscp`.",
        _LIMIT,
        _each_limit(_where_marked),
    ),
    Measure(
        "tokenbucket_pod_forwarded_packets_total",
        "Of those admitted, packets that exceeded the limit, and were marked or only observed.",
        _LIMIT,
        _each_limit(_where_forwarded),
    ),
    Measure(
        "tokenbucket_pod_rate_bytes_per_second",
        "The declared rate, in bytes: utilisation is the rate of admitted bytes over this.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.bits_per_s / 8 or None),
    ),
    Measure(
        "tokenbucket_pod_burst_bytes",
        "The burst that goes with it, declared or computed.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.burst_bytes or None),
    ),
    Measure(
        "tokenbucket_pod_rate_packets_per_second",
        "The declared rate in packets.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.packets_per_s or None),
    ),
    Measure(
        "tokenbucket_pod_burst_packets",
        "The burst that goes with it.",
        _LIMIT,
        _each_limit(lambda slot, _: slot.config.burst_packets or None),
    ),
    Measure(
        "tokenbucket_pod_not_as_declared",
        "1 for each limit of a pod that is not in force, or not as declared.",
        (*_LIMIT, "reason"),
        _not_as_declared,
    ),
)
