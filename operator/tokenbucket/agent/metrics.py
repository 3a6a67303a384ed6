"""The agent's metrics: read from the kernel's maps and from the loop when they are asked for.

Imported only where they are to be served: in a standalone agent the libraries take 27 MiB, in a cluster's 1.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from tokenbucket import __version__
from tokenbucket.agent.options import MetricsOptions
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.limits.slot import NO_SLOT
from tokenbucket.core.status.node_status import pods_not_programmed
from tokenbucket.errors import KernelError
from tokenbucket.metrics.agent import OF_THE_AGENT, OF_THE_PODS, AgentReading
from tokenbucket.metrics.measure import registry_of
from tokenbucket.metrics.server import serving


@dataclass(frozen=True, slots=True)
class Exposition:
    """Where an agent's metrics come from."""

    pins: Pins
    passes: ReconcileStats
    ready: Callable[[], bool]
    reported_at_s: Callable[[], float | None] = lambda: None
    api_requests: Callable[[], Mapping[tuple[str, int], int]] = dict

    def serve(self, options: MetricsOptions) -> AbstractContextManager[None]:
        """Answers for the block."""
        measures = OF_THE_AGENT + (OF_THE_PODS if options.per_pod else ())
        return serving(options.host, options.port, registry_of(measures, self.read))

    def read(self) -> AgentReading:
        """Read the current values. Raises KernelError, and LoadError if other programs own the pins."""
        situation = self.passes.situation
        reading = AgentReading(
            version=__version__,
            ready=self.ready(),
            enforcement=situation.enforcement,
            passes={result.value: count for result, count in self.passes.counts.items()},
            pass_seconds=self.passes.seconds,
            passed_at_s=self.passes.completed_at_s,
            in_force=len(situation.in_force),
            findings=Counter(finding.reason for finding in situation.findings),
            pods=tuple(pods_not_programmed(situation)),
            reported_at_s=self.reported_at_s(),
            api_requests=self.api_requests(),
        )
        try:
            return _with_slots(reading, self.pins)
        except KernelError as error:
            if error.errno != errno.ENOENT:  # nothing is loaded
                raise
            return reading


def _with_slots(reading: AgentReading, pins: Pins) -> AgentReading:
    with Slots(pins) as slots:
        limits = slots.read_with_stats()
        return replace(
            reading,
            slots=slots.count - 1,  # that of nobody
            slots_in_use=len(limits),
            unmetered_packets=slots.stats(NO_SLOT).unmetered_packets,
            limits=limits,
        )
