"""A node and its pods, made of network namespaces and veths. The test process's own namespace is the node."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

BRIDGE = "cni0"
UPLINK = "uplink"
_CLONE_NEWNET = 0x40000000
Made = TypeVar("Made")


def ip(*arguments: str, netns: str | None = None) -> str:
    """Run ``ip`` in the namespace of a pod or of the node. Return its output."""
    inside = ["-n", netns] if netns else []
    return run("ip", *inside, *arguments)


def tc(*arguments: str) -> str:
    """Run ``tc`` on the node."""
    return run("tc", *arguments)


def batch(tool: str, lines: str | Iterable[str], netns: str | None = None) -> None:
    """Run commands of ``ip`` or ``tc`` in one process."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    inside = ["-n", netns] if netns else []
    done = subprocess.run([tool, *inside, "-batch", "-"], input=text + "\n", capture_output=True, text=True)
    assert done.returncode == 0, f"{tool} {text}: {done.stderr.strip()}"


@contextlib.contextmanager
def entered(netns: str) -> Iterator[None]:
    """Move this thread into a named network namespace and back. Opened sockets and processes stay there.

    Only the network changes. In contrast, ``ip netns exec`` hides the bpffs.
    """
    with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", netns).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    assert ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET) == 0


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def ifindex(name: str) -> int:
    """Return the index of an interface of the node."""
    return json.loads(ip("-json", "link", "show", "dev", name))[0]["ifindex"]


@dataclass
class Pod:
    """A namespace with interfaces eth0, eth1, ... whose other ends are on the node."""

    name: str
    netns: str
    addresses: list[str]
    veths: list[str] = field(default_factory=list)
    """Names of the host-side interfaces."""

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.netns)

    @property
    def inode(self) -> int:
        return self.path.stat().st_ino

    @property
    def veth(self) -> str:
        """Return the name of the host-side interface of eth0."""
        return self.veths[0]

    @property
    def ifindex(self) -> int:
        """Return the index of the host-side interface of eth0."""
        return ifindex(self.veth)

    @property
    def ifindexes(self) -> set[int]:
        return {ifindex(name) for name in self.veths}

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """Return the first address."""
        return ipaddress.ip_interface(self.addresses[0]).ip

    def run(self, *command: str) -> str:
        """Run a command inside the pod."""
        return run("ip", "netns", "exec", self.netns, *command)

    def popen(self, *command: str, **options) -> subprocess.Popen:
        """Start a command inside the pod."""
        return subprocess.Popen(["ip", "netns", "exec", self.netns, *command], **options)

    def add_address(self, address: str, device: str = "eth0") -> None:
        ip("address", "add", address, "dev", device, *_nodad(address), netns=self.netns)

    def socket(self, family: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Open a socket inside the pod."""
        return self.inside(lambda: socket.socket(family, kind))

    def inside(self, make: Callable[[], Made]) -> Made:
        """Call a function in a thread that enters the pod's network namespace. Return its result."""

        def enter() -> Made:
            with entered(self.netns):
                return make()

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(enter).result()

    def answers(self) -> bool:
        """Return whether packets pass between the node and the pod's first address, in both directions."""
        family = socket.AF_INET if self.ip.version == 4 else socket.AF_INET6
        with self.socket(family) as inside, socket.socket(family, socket.SOCK_DGRAM) as outside:
            inside.bind((str(self.ip), 0))
            for sock in (inside, outside):
                sock.settimeout(1)
            try:
                outside.sendto(b"?", inside.getsockname())
                inside.sendto(b"!", inside.recvfrom(16)[1])
                return outside.recv(16) == b"!"
            except OSError:
                return False


class Lab:
    """Create pods on the node. At the end, remove the pods and everything else that was added to the node."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")

    def pod(
        self,
        name: str,
        addresses: list[str] = (),
        style: str = "ptp",
        interfaces: int = 1,
        *,
        wire: bool = True,
    ) -> Pod:
        """Create a pod with these addresses on eth0. The host-side end is routed (``ptp``) or bridged
        (``bridge``).

        ``wire=False`` omits the interface.
        """
        pod = Pod(name, f"pod-{name}", list(addresses))
        ip("netns", "add", pod.netns)
        self.pods[name] = pod
        ip("link", "set", "lo", "up", netns=pod.netns)
        for number in range(interfaces if wire else 0):
            self.add_interface(pod, f"eth{number}")
        for address in pod.addresses if wire else ():
            pod.add_address(address)
            (self._route if style == "ptp" else self._switch)(pod, address)
        return pod

    def add_interface(self, pod: Pod, device: str) -> str:
        """Add a veth pair between a pod and the node, with both ends up. Return the host-side name."""
        veth = f"veth-{pod.name}{len(pod.veths)}"
        ip("link", "add", "name", veth, "type", "veth", "peer", "name", device, "netns", pod.netns)
        quiet = Path(f"/proc/sys/net/ipv6/conf/{device}/router_solicitations")
        pod.inside(lambda: quiet.write_text("0"))
        ip("link", "set", veth, "up")
        ip("link", "set", device, "up", netns=pod.netns)
        pod.veths.append(veth)
        return veth

    def add_upper(self, pod: Pod, device: str, address: str, kind: str) -> None:
        """Add an interface on top of one of the node, such as macvlan. It has no other end on the node."""
        if UPLINK not in _names():
            self.link(UPLINK, "veth", "peer", "name", "wire")
            ip("link", "set", "wire", "up")
        mode = {"macvlan": ["mode", "bridge"], "ipvlan": ["mode", "l2"]}[kind]
        ip("link", "add", "link", UPLINK, "name", device, "netns", pod.netns, "type", kind, *mode)
        ip("link", "set", device, "up", netns=pod.netns)
        pod.add_address(address, device)

    def add_netkit(self, pod: Pod, device: str, address: str) -> None:
        """Add a netkit pair. Its packets take another path through the kernel than those of a veth pair."""
        primary, before = f"netkit-{pod.name}", _names()
        ip("link", "add", primary, "type", "netkit")
        [peer] = _names() - before - {primary}
        ip("link", "set", peer, "netns", pod.netns, "name", device)
        ip("link", "set", primary, "up")
        ip("link", "set", device, "up", netns=pod.netns)
        pod.veths.append(primary)
        pod.add_address(address, device)
        self._route(pod, address)

    def _route(self, pod: Pod, address: str) -> None:
        interface = ipaddress.ip_interface(address)
        bits, gateway = interface.ip.max_prefixlen, str(_gateway(address))
        ip("address", "add", f"{gateway}/{bits}", "dev", pod.veth, *_nodad(address))
        ip("route", "add", f"{interface.ip}/{bits}", "dev", pod.veth)
        ip("route", "replace", "default", "via", gateway, "dev", "eth0", netns=pod.netns)

    def _switch(self, pod: Pod, address: str) -> None:
        gateway = f"{_gateway(address)}/{ipaddress.ip_interface(address).network.prefixlen}"
        if BRIDGE not in _names():
            ip("link", "add", "name", BRIDGE, "type", "bridge")
            ip("link", "set", BRIDGE, "up")
        ip("address", "replace", gateway, "dev", BRIDGE, *_nodad(address))
        ip("link", "set", pod.veth, "master", BRIDGE)
        ip("route", "replace", "default", "via", str(_gateway(address)), "dev", "eth0", netns=pod.netns)

    def link(self, name: str, kind: str, *arguments: str) -> int:
        """Add another interface of the node, and set it up. Return its index."""
        ip("link", "add", "name", name, "type", kind, *arguments)
        ip("link", "set", name, "up")
        return ifindex(name)

    def delete(self, pod: Pod) -> None:
        """Remove a pod completely. Removing its interfaces first makes the removal synchronous."""
        for veth in pod.veths:
            _discard(veth)
        ip("netns", "delete", pod.netns)
        del self.pods[pod.name]

    def close(self) -> None:
        """Remove all pods, and all interfaces except the loopback interface."""
        for pod in tuple(self.pods.values()):
            self.delete(pod)
        for name in _names() - {"lo"}:
            _discard(name)
        run("ip", "address", "flush", "dev", "lo", "scope", "global")


def _discard(name: str) -> None:
    """Remove an interface. Ignore an interface that no longer exists, or that the kernel does not remove."""
    subprocess.run(["ip", "link", "delete", name], capture_output=True)


def _names() -> set[str]:
    return {link["ifname"] for link in json.loads(ip("-json", "link", "show"))}


def _gateway(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the first address of the network."""
    return ipaddress.ip_interface(address).network[1]


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []
