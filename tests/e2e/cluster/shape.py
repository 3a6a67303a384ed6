"""The nodes and addresses of the cluster, as data. Nothing here changes the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTROL_PLANE_IPV4 = "10.200.0.1"
CONTROL_PLANE_IPV6 = "fd00:200::1"
NODE_PREFIX_IPV4 = 24
NODE_PREFIX_IPV6 = 64
PODS = "10.244.0.0/16,fd00:244::/48"
SERVICES = "10.96.0.0/16,fd00:96::/108"
KUBERNETES_SERVICE = "10.96.0.1"
API_PORT = 6443
BRIDGE = "nodes"
"""The switch that the nodes' links meet at, in the control plane's network namespace."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node. Its number decides its addresses."""

    name: str
    number: int
    cni: Literal["bridge", "ptp", "cilium"]
    kind: Literal["namespace", "vm"]

    @property
    def ipv4(self) -> str:
        """The node's own address."""
        return f"10.200.0.{10 + self.number}"

    @property
    def ipv6(self) -> str:
        """The node's own address."""
        return f"fd00:200::{10 + self.number}"

    @property
    def pods_ipv4(self) -> str:
        """The range of its pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def pods_ipv6(self) -> str:
        """The range of its pods."""
        return f"fd00:244:0:{self.number}::/64"

    @property
    def link(self) -> str:
        """Name of the control plane's end of its link."""
        return f"to-{self.number}"


NAMESPACE_NODES = (
    Node("node-bridge", 1, "bridge", "namespace"),
    Node("node-ptp", 2, "ptp", "namespace"),
)
CILIUM_NODES = (
    Node("node-cilium-1", 1, "cilium", "namespace"),
    Node("node-cilium-2", 2, "cilium", "namespace"),
)
"""In a cluster of their own, so their numbers are free."""
VM_NODE = Node("node-vm", 3, "bridge", "vm")


def other_nodes(node: Node) -> tuple[Node, ...]:
    """Return all nodes that can exist beside ``node``, one of each number. The addresses are the same."""
    return tuple(other for other in (*NAMESPACE_NODES, VM_NODE) if other.number != node.number)


def address_lines(node: Node, device: str) -> list[str]:
    """Return lines of ``ip -batch`` that give a node its addresses and its routes to the others."""
    return [
        "link set lo up",
        f"address add {node.ipv4}/{NODE_PREFIX_IPV4} dev {device}",
        f"address add {node.ipv6}/{NODE_PREFIX_IPV6} dev {device} nodad",
        f"link set {device} up",
        f"route add default via {CONTROL_PLANE_IPV4}",
        f"route add default via {CONTROL_PLANE_IPV6}",
        *routes(other_nodes(node)),
    ]


def routes(to: tuple[Node, ...]) -> list[str]:
    """Return lines for ``ip -batch`` that lead to the pods of the given nodes."""
    pairs = [(node.pods_ipv4, node.ipv4) for node in to] + [(node.pods_ipv6, node.ipv6) for node in to]
    return [f"route add {pods} via {gateway}" for pods, gateway in pairs]
