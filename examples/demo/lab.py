"""The pods of the demonstration: on a bridge, point-to-point, and with IPv6. The node is this process."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface

from tests.isolation import private_namespaces
from tests.netns.lab import Lab, Pod


@dataclass(frozen=True)
class DemoPod:
    """One pod-like namespace."""

    name: str
    address: str
    style: str
    rate_bits_per_s: int
    protocol: str = "UDP"

    @property
    def host(self) -> str:
        """Its address without the prefix length."""
        return str(ip_interface(self.address).ip)


PODS = (
    DemoPod("web-0", "10.77.1.2/24", "bridge", 10_000_000),
    DemoPod("web-1", "10.77.1.3/24", "bridge, TCP", 10_000_000, "TCP"),
    DemoPod("db-0", "10.77.2.2/24", "point-to-point", 20_000_000),
    DemoPod("api-0", "fd77::2/64", "bridge, IPv6", 20_000_000),
)


def build() -> dict[str, Pod]:
    """Make this process a node that forwards between a client and the pods. Returns them by name."""
    private_namespaces()
    node = Lab()
    node.pod("client", ["10.77.0.2/24", "fd77:0:0:9::2/64"])
    for pod in PODS:
        node.pod(pod.name, [pod.address], "ptp" if pod.style == "point-to-point" else "bridge")
    return node.pods


def manifests() -> str:
    """Return the pods, as documents for the agent."""
    documents = [
        f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod.name}\n  namespace: shop\n"
        f"  labels: {{app: {pod.name.split('-')[0]}}}\nstatus: {{podIP: '{pod.host}'}}\n"
        for pod in PODS
    ]
    return "---\n".join(documents)
