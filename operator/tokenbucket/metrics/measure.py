"""A metric and where its value comes from, side by side, so that the list of them is the documentation."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.registry import Collector

Reading = TypeVar("Reading")
"""What was found at one moment, which all values of one scrape are taken from."""
Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the value."""


class Kind(enum.StrEnum):
    """What Prometheus may do with a value."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Measure(Generic[Reading]):
    """One metric."""

    name: str
    """As it is exposed, in base units; ``_total`` at the end makes it a counter."""
    meaning: str
    labels: tuple[str, ...]
    samples: Callable[[Reading], Iterable[Sample]]

    @property
    def kind(self) -> Kind:
        """By the convention for names."""
        return Kind.COUNTER if self.name.endswith("_total") else Kind.GAUGE

    def family(self, reading: Reading) -> Metric:
        """All its samples."""
        family = Metric(self.name.removesuffix("_total"), self.meaning, self.kind)
        for values, value in self.samples(reading):
            family.add_sample(self.name, dict(zip(self.labels, values, strict=True)), value)
        return family


def alone(value: Callable[[Reading], float | None]) -> Callable[[Reading], list[Sample]]:
    """For a metric without labels; without a sample where there is no value."""

    def samples(reading: Reading) -> list[Sample]:
        found = value(reading)
        return [] if found is None else [((), found)]

    return samples


class _Readings(Collector, Generic[Reading]):
    """Reads once for each scrape."""

    def __init__(self, measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> None:
        self._measures = tuple(measures)
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for measure in self._measures:
            yield measure.family(reading)


def registry_of(measures: Iterable[Measure[Reading]], read: Callable[[], Reading]) -> CollectorRegistry:
    """These metrics and those of the process. ``read`` is called for each scrape, and may raise."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Readings(measures, read))
    return registry
