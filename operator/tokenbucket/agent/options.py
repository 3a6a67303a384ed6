"""Define the options of the agent, without an import of the large libraries that use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenbucket.bpf.pins import Pins, Sizes
from tokenbucket.core.planning.attachment import AttachMode


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """Address of the metrics, and whether they include metrics per pod."""

    host: str
    port: int
    tls: tuple[Path, Path] | None = None
    """PEM files: the certificate chain and its private key."""
    per_pod: bool = True


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Address of the live figures."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Identity and settings of the agent in a cluster."""

    node: str
    namespace: str
    """Namespace of the release."""
    pod: str
    config_map: str
    """Name of the release's ConfigMap."""
    protected: frozenset[str] = frozenset()
    readiness_gates: bool = False
    bandwidth_annotations: bool = False
    """Whether annotations of pods declare limits."""
    remove_taint: bool = False
    start_jitter_s: float | None = None
    """Longest delay before the first watch. Derived from the number of nodes if it is 0."""
    report_spread_s: float = 0.0
    """Maximum delay of a report in seconds. Derived from the number of nodes if it is 0."""
    probe_host: str = "127.0.0.1"
    probe_port: int = 10473
    cni_results: Path = Path("/var/lib/cni/results")

    @property
    def override_config_map(self) -> str:
        """Return the name of the ConfigMap that overrides the mode of the release's ConfigMap."""
        return f"{self.config_map}-override"

    @property
    def release(self) -> str:
        """Return the name of the release in reports: two releases have different ConfigMaps."""
        return f"{self.namespace}/{self.config_map}"


@dataclass(frozen=True, slots=True)
class DataPathOptions:
    """Where limits are stored and how they are attached."""

    pins: Pins
    sizes: Sizes
    attach: AttachMode = AttachMode.AUTO
