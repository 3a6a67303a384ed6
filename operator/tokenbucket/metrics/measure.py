"""Define a metric together with the source of its value. The documentation is generated from the list."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.registry import Collector

Reading = TypeVar("Reading")
"""Values at one moment, for all metrics of one scrape."""
Sample = tuple[tuple[str, ...], float]
"""Label values, and the value."""


class Kind(enum.StrEnum):
    """Type of a metric in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Measure(Generic[Reading]):
    """One metric."""

    name: str
    """Exposed name, in base units. The suffix ``_total`` marks a counter."""
    meaning: str
    labels: tuple[str, ...]
    samples: Callable[[Reading], Iterable[Sample]]

    @property
    def kind(self) -> Kind:
        """Return the type, from the name."""
        return Kind.COUNTER if self.name.endswith("_total") else Kind.GAUGE

    def family(self, reading: Reading) -> Metric:
        """Return all samples of the metric."""
        family = Metric(self.name.removesuffix("_total"), self.meaning, self.kind)
        for values, value in self.samples(reading):
            family.add_sample(self.name, dict(zip(self.labels, values, strict=True)), value)
        return family


def alone(value: Callable[[Reading], float | None]) -> Callable[[Reading], list[Sample]]:
    """Return the samples of a metric without labels. There is no sample for ``None``."""

    def samples(reading: Reading) -> list[Sample]:
        found = value(reading)
        return [] if found is None else [((), found)]

    return samples


class _Readings(Collector, Generic[Reading]):
    """Collector that reads once for each scrape."""

    def __init__(self, measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> None:
        self._measures = tuple(measures)
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for measure in self._measures:
            yield measure.family(reading)


def registry_of(measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> CollectorRegistry:
    """Return a registry of these and process metrics. Each scrape calls ``read``, which may raise."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Readings(measures, read))
    return registry
