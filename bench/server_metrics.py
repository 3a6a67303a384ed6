"""What an API server says of its own work, and the difference between two moments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

Labels = frozenset[tuple[str, str]]
_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FAMILIES = frozenset(
    {
        "apiserver_request_total",
        "apiserver_response_sizes_sum",
        "apiserver_longrunning_requests",
        "apiserver_watch_events_total",
        "apiserver_watch_events_sizes_sum",
        "apiserver_cache_list_total",
        "apiserver_cache_list_fetched_objects_total",
        "apiserver_terminated_watchers_total",
        "etcd_request_duration_seconds_count",
        "process_resident_memory_bytes",
    }
)


@dataclass(frozen=True)
class Metrics:
    """Values by family and labels; of gauges the last, of counters the sum since some beginning."""

    values: Counter[tuple[str, Labels]] = field(default_factory=Counter)

    def __sub__(self, earlier: Metrics) -> Metrics:
        return Metrics(
            Counter({key: value - earlier.values[key] for key, value in self.values.items()}),
        )

    def sum(self, family: str, **labels: str) -> float:
        """Of all that have these labels."""
        wanted = labels.items()
        return sum(
            value for (name, found), value in self.values.items() if name == family and wanted <= set(found)
        )

    def by(self, family: str, labels: Iterable[str]) -> dict[tuple[str, ...], float]:
        """Sums by these labels, without those that are zero."""
        sums: Counter[tuple[str, ...]] = Counter()
        for (name, found), value in self.values.items():
            if name == family:
                named = dict(found)
                sums[tuple(named.get(label, "") for label in labels)] += value
        return {key: value for key, value in sorted(sums.items()) if value}


def parse(text: str) -> Metrics:
    """Read the families that are of interest from the text format."""
    values: Counter[tuple[str, Labels]] = Counter()
    for name, labels, value in _LINE.findall(text):
        if name in _FAMILIES:
            values[name, frozenset(_LABEL.findall(labels))] += float(value)
    return Metrics(values)
