"""How Cilium's agent is started, by mode. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import shape

BPF_ROOT = "/run/cilium/bpf"
_IPV4_PODS, _IPV6_PODS = shape.PODS.split(",")
_OPTIONS = {
    "ipam": "kubernetes",
    "enable-ipv4": "true",
    "enable-ipv6": "true",
    "routing-mode": "native",
    "ipv4-native-routing-cidr": _IPV4_PODS,
    "ipv6-native-routing-cidr": _IPV6_PODS,
    # Tunnel mode deletes the static routes to the pods of other nodes.
    "auto-direct-node-routes": "true",
    "enable-ipv4-masquerade": "false",
    "enable-ipv6-masquerade": "false",
    "install-iptables-rules": "true",
    "kube-proxy-replacement": "true",
    "bpf-lb-sock": "false",
    "enable-l7-proxy": "false",
    "enable-envoy-config": "false",
    "enable-hubble": "false",
    "enable-bandwidth-manager": "false",
    "enable-health-checking": "false",
    "enable-endpoint-health-checking": "false",
    "enable-gops": "false",
    "identity-allocation-mode": "crd",
    "cni-exclusive": "false",
    "devices": "eth0",
    "direct-routing-device": "eth0",
    "bpf-root": BPF_ROOT,
    "cgroup-root": "/run/cilium/cgroupv2",
    "lib-dir": "/var/lib/cilium",
    "state-dir": "/var/run/cilium",
    # The smallest maps: the machine is shared.
    "bpf-map-dynamic-size-ratio": "0.0005",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to run Cilium, which decides the hooks that a packet passes."""

    name: str
    changed: Mapping[str, str] = field(default_factory=dict)
    """Options that differ from those of HOST_ROUTING."""

    def options(self) -> list[str]:
        """Return the options of Cilium's agent, except its kubeconfig."""
        return [f"--{name}={value}" for name, value in (_OPTIONS | dict(self.changed)).items()]


HOST_ROUTING = Mode("host-routing")
"""Programs at tcx, which redirect packets past the host-side interface of the receiving pod."""
HOST_ROUTING_TC = Mode("tc-filters", {"enable-tcx": "false"})
"""The same with tc filters in place of tcx."""
LEGACY_ROUTING = Mode("legacy-routing", {"enable-host-legacy-routing": "true"})
"""Programs at tcx; packets pass the routing of the node."""
TUNNEL = Mode(
    "tunnel",
    {
        "kube-proxy-replacement": "false",
        "routing-mode": "tunnel",
        "tunnel-protocol": "vxlan",
        "auto-direct-node-routes": "false",
    },
)
"""As the Helm chart of Cilium installs it: kube-proxy, vxlan, and so the routing of the node."""
