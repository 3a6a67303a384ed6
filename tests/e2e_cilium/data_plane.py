"""Cilium on the suite's cluster, and the mode that it runs in."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import cilium
from cluster.cilium_mode import Mode
from cluster.cluster import Cluster
from tests.e2e.release import until


@dataclass(slots=True)
class DataPlane:
    """Cilium's agents on all nodes of a cluster."""

    cluster: Cluster
    mode: Mode | None = None

    def install(self, mode: Mode) -> None:
        """Install Cilium, and run it in a mode."""
        cilium.install(self.cluster)
        self.run(mode)

    def run(self, mode: Mode) -> None:
        """Run Cilium in a mode. Nothing happens if it runs in the mode already."""
        if self.mode != mode:
            cilium.run_agents(self.cluster, mode)
            self.mode = mode

    def restart(self) -> None:
        """Kill the agents and start them again in their mode."""
        assert self.mode is not None
        cilium.run_agents(self.cluster, self.mode)

    def wait_enforced(self, node: str, namespace: str, pod: str, *, enforced: bool) -> None:
        """Wait until Cilium has loaded a pod's programs with, or without, enforcement of network policies."""
        labels = {f"k8s:io.kubernetes.pod.namespace={namespace}", f"k8s:app={pod}"}
        until(
            lambda: self._is_enforced(node, labels) == enforced,
            lambda: f"{namespace}/{pod}: {enforced=}",
            timeout_s=120,
        )

    def _is_enforced(self, node: str, labels: set[str]) -> bool | None:
        """Return whether policies are enforced on a pod; ``None`` while its programs are being loaded."""
        for each in cilium.endpoints(self.cluster.box(node)):
            status = each["status"]
            if status["state"] == "ready" and labels <= set(status["labels"]["security-relevant"]):
                return bool(status["policy"]["realized"]["policy-enabled"] != "none")
        return None
