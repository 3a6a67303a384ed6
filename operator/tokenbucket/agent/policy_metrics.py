"""Metrics of the policies of a node: sums over its pods, for nodes without metrics of each pod.

A sum of the kernel's counters decreases if a pod ends, which Prometheus takes for a restart. Therefore, the
sums add what each counter has gained since the last scrape.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits.slot import Role, Slot, SlotKey
from tokenbucket.core.limits.stats import EXPOSED, Exposed, Stats
from tokenbucket.core.status.node_status import NodeState, pods_not_programmed
from tokenbucket.metrics import Measure, Sample

_LABELS = ("namespace", "policy", "direction")
Labels = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """Values of the policies at one moment."""

    counts: Mapping[Labels, Mapping[str, int]] = field(default_factory=dict)
    """By the attribute of :class:`Stats`."""
    bits_per_s: Mapping[Labels, int] = field(default_factory=dict)
    state: NodeState = field(default_factory=NodeState)


@dataclass(slots=True)
class PolicyTotals:
    """The sums since the first scrape. One thread uses them at a time."""

    _seen: Mapping[SlotKey, Stats] | None = None
    _counts: dict[Labels, Counter[str]] = field(default_factory=dict)

    def read(self, limits: Sequence[tuple[Slot, Stats]], state: NodeState) -> PolicyReading:
        """Add the gain of each limit to its policy. Forget policies that limit no pod any more."""
        seen: dict[SlotKey, Stats] = {}
        rates: Counter[Labels] = Counter()
        counts: dict[Labels, Counter[str]] = defaultdict(Counter)
        for slot, stats in limits:
            key = slot.owner.key
            if key.role is not Role.LIMIT or not isinstance(key.subject, PodId):
                continue
            labels = key.subject.namespace, slot.owner.policy, key.direction.value
            seen[key] = stats
            rates[labels] += slot.config.bits_per_s
            if labels not in counts:
                counts[labels] = Counter(self._counts.get(labels, ()))
            for exposed in _exposed(slot, stats):
                counts[labels][exposed.counter] += self._gain(exposed, key, stats)
        self._seen, self._counts = seen, dict(counts)
        return PolicyReading(counts, rates, state)

    def _gain(self, exposed: Exposed, key: SlotKey, stats: Stats) -> int:
        """Return how much a counter has gained since the last scrape. The first scrape has no gain."""
        now = exposed.value(stats)
        if self._seen is None:
            return 0
        before = exposed.value(self._seen[key]) if key in self._seen else 0
        return now - before if now >= before else now  # a new slot of the same pod counts from zero


def _exposed(slot: Slot, stats: Stats) -> Iterable[Exposed]:
    return (each for each in EXPOSED if each.metric and each.applies(slot.config, stats))


class _WithPolicies(Protocol):
    @property
    def policies(self) -> PolicyReading: ...


def _counter(exposed: Exposed) -> Measure[Any]:
    def samples(reading: _WithPolicies) -> Iterator[Sample]:
        for labels, counts in reading.policies.counts.items():
            if exposed.counter in counts:
                yield labels, counts[exposed.counter] / exposed.per_unit

    return Measure(f"tokenbucket_policy_{exposed.metric}_total", exposed.meaning, _LABELS, samples)


def _rates(reading: _WithPolicies) -> Iterator[Sample]:
    return ((labels, bits / 8) for labels, bits in reading.policies.bits_per_s.items() if bits)


def _not_as_declared(reading: _WithPolicies) -> Iterator[Sample]:
    pods = pods_not_programmed(reading.policies.state)
    counts = Counter((pod.namespace, pod.policy, pod.direction, pod.reason) for pod in pods)
    return iter(sorted(counts.items()))


OF_THE_POLICIES: tuple[Measure[Any], ...] = (
    *(_counter(exposed) for exposed in EXPOSED if exposed.metric),
    Measure(
        "tokenbucket_policy_rate_bytes_per_second",
        "Sum of the declared rates in bytes of all limited pods.",
        _LABELS,
        _rates,
    ),
    Measure(
        "tokenbucket_policy_not_as_declared",
        "Limits of pods that are not enforced as declared.",
        (*_LABELS, "reason"),
        _not_as_declared,
    ),
)
