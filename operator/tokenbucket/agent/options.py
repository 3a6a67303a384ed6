"""What is chosen of an agent with a cluster and without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """Where metrics are answered, and whether each pod has its own."""

    host: str
    port: int
    per_pod: bool = True
