"""A node with three pods, in network namespaces: one on a bridge, one point-to-point, one on IPv6."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from ipaddress import ip_interface

PREFIX = "tb-demo"
NODE, CLIENT = f"{PREFIX}-node", f"{PREFIX}-client"


@dataclass(frozen=True)
class DemoPod:
    """One pod-like namespace."""

    name: str
    address: str
    style: str
    rate_bits_per_s: int

    @property
    def netns(self) -> str:
        """Name of its namespace."""
        return f"{PREFIX}-{self.name}"

    @property
    def host(self) -> str:
        """Its address without the prefix length."""
        return str(ip_interface(self.address).ip)


PODS = (
    DemoPod("web-0", "10.77.1.2/24", "bridge", 10_000_000),
    DemoPod("db-0", "10.77.2.2/32", "point-to-point", 20_000_000),
    DemoPod("api-0", "fd77::2/64", "bridge, IPv6", 20_000_000),
)


def enter(netns: str) -> list[str]:
    """Words before a command that runs it in a network namespace; ``ip netns exec`` would hide the bpffs."""
    return ["nsenter", f"--net=/run/netns/{netns}"]


def run(command: str, netns: str | None = None) -> str:
    """Runs a command, in a namespace if one is named. Raises CalledProcessError."""
    words = (enter(netns) if netns else []) + command.split()
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def build() -> None:
    """Makes the namespaces. The node forwards between the client and the pods."""
    for name in (NODE, CLIENT, *(pod.netns for pod in PODS)):
        run(f"ip netns add {name}")
        run("ip link set lo up", name)
    run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", NODE)
    run("ip link add cni0 type bridge", NODE)
    run("ip addr add 10.77.1.1/24 dev cni0", NODE)
    run("ip -6 addr add fd77::1/64 dev cni0 nodad", NODE)
    run("ip link set cni0 up", NODE)
    _client()
    for number, pod in enumerate(PODS):
        _pod(pod, f"veth{number}")


def _client() -> None:
    run(f"ip link add uplink netns {NODE} type veth peer name eth0 netns {CLIENT}")
    for netns, device, suffix in ((NODE, "uplink", 1), (CLIENT, "eth0", 2)):
        run(f"ip addr add 10.77.0.{suffix}/24 dev {device}", netns)
        run(f"ip -6 addr add fd77:0:0:9::{suffix}/64 dev {device} nodad", netns)
        run(f"ip link set {device} up", netns)
    run("ip route add default via 10.77.0.1", CLIENT)
    run("ip -6 route add default via fd77:0:0:9::1", CLIENT)


def _pod(pod: DemoPod, veth: str) -> None:
    run(f"ip link add {veth} netns {NODE} type veth peer name eth0 netns {pod.netns}")
    run(f"ip link set {veth} up", NODE)
    run("ip link set eth0 up", pod.netns)
    nodad = " nodad" if ":" in pod.address else ""
    run(f"ip addr add {pod.address} dev eth0{nodad}", pod.netns)
    if pod.style == "point-to-point":
        run(f"ip route add {pod.address} dev {veth}", NODE)
        run(f"ip addr add 169.254.1.1/32 dev {veth}", NODE)
        run("ip route add 169.254.1.1 dev eth0", pod.netns)
        run("ip route add default via 169.254.1.1 dev eth0", pod.netns)
    else:
        run(f"ip link set {veth} master cni0", NODE)
        gateway = "fd77::1" if ":" in pod.address else "10.77.1.1"
        run(f"ip route add default via {gateway}", pod.netns)


def received_bytes(pod: DemoPod) -> int:
    """Wire bytes that the pod has received so far."""
    line = run("cat /proc/net/dev", pod.netns)
    counters = next(text for text in line.splitlines() if text.strip().startswith("eth0:"))
    return int(counters.split(":")[1].split()[0])


def destroy() -> None:
    """Removes the namespaces, and with them all that is in them."""
    for name in (*(pod.netns for pod in PODS), CLIENT, NODE):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def manifests() -> str:
    """The pods, as documents for the agent."""
    documents = [
        f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod.name}\n  namespace: shop\n"
        f"  labels: {{app: {pod.name.split('-')[0]}}}\nstatus: {{podIP: '{pod.host}'}}\n"
        for pod in PODS
    ]
    return "---\n".join(documents)
