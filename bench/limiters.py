"""What limits a pod, in what it receives if no more is said: this project, and what its users have today.

All get the same rate, and for the rest what a user gets who says no more. Where a limiter asks for a depth of
the bucket, that is 50 ms of the rate; only the CNI plugin as the kubelet calls it has 2^31-1 bits.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lab
from exactness import Route

from tests.netns.agent import wait
from tests.netns.lab import batch, run

BURST_S = 0.05
DROP_BURSTS_MS = (50, 100, 250, 500, 1000)
FLOOR_BYTES = 16 * 1024
KUBELETS_BURST_BITS = 2**31 - 1
_HOST_SIDE, _POD_SIDE = "pod0", "eth0"


@dataclass(frozen=True)
class Limiter:
    """One way to limit a pod."""

    name: str
    install: Callable[[Route, int], None]
    """Limits to a rate in bits per second."""
    remove: Callable[[Route], None]
    ecn: bool = False
    """Both ends ask for explicit congestion notification."""
    burst_bytes: Callable[[int], int] | None = None
    """The depth of the bucket at a rate in bits per second."""
    sends: bool = False
    """It limits what the pod sends."""


def _declare(
    route: Route,
    bits_per_s: int,
    action: str,
    burst_s: float | None = None,
    direction: str = "ingress",
    queue: str | None = None,
) -> None:
    burst_bytes = max(int(bits_per_s * burst_s / 8), FLOOR_BYTES) if burst_s else None
    document = lab.policy_document(bits_per_s, burst_bytes, action=action, direction=direction, queue=queue)
    route.node.declare("policy.yaml", document)
    wait(lambda: route.active(bits_per_s, delays=action == "Delay"), lambda: f"{action} active")
    if direction == "egress":  # tc does not show a program of tcx, which follows the queue at once
        wait(lambda: _root(_POD_SIDE, route.pod) == "fq", lambda: "the queue in place")
    else:
        wait(lambda: _has_program(_HOST_SIDE, None), lambda: "the program in place")


def _lift(route: Route) -> None:
    route.node.declare("policy.yaml", "")
    for place in ((_HOST_SIDE, None), (_POD_SIDE, route.pod)):
        wait(lambda place=place: _is_free(*place), lambda: "limit removed")


def _is_free(device: str, netns: str | None) -> bool:
    return _root(device, netns) == "noqueue" and not _has_program(device, netns)


def _root(device: str, netns: str | None) -> str:
    """Return the kind of the root qdisc."""
    qdiscs = json.loads(_show(netns, "-json", "qdisc", "show", "dev", device))
    return str(next(each["kind"] for each in qdiscs if "root" in each))


def _has_program(device: str, netns: str | None) -> bool:
    return "bpf" in _show(netns, "filter", "show", "dev", device, "egress")


def _show(netns: str | None, *words: str) -> str:
    return run("tc", *(["-n", netns] if netns else []), *words)


def _ours(
    name: str, action: str, *, ecn: bool = False, direction: str = "ingress", queue: str | None = None
) -> Limiter:
    default_burst_s = {"Delay": 0.05, "Drop": 0.5}[action]

    def install(route: Route, bits_per_s: int) -> None:
        _declare(route, bits_per_s, action, direction=direction, queue=queue)

    return Limiter(
        name, install, _lift, ecn, lambda bits: _depth(bits, default_burst_s), direction == "egress"
    )


def drops() -> dict[str, Limiter]:
    """Drop with bursts from one that suits a queue to one that is a second of the rate, by name."""

    def drop(milliseconds: int) -> Limiter:
        name = f"Drop, {milliseconds} ms"
        return Limiter(name, lambda route, bits: _declare(route, bits, "Drop", milliseconds / 1000), _lift)

    return {each.name: each for each in map(drop, DROP_BURSTS_MS)}


def _plugin(
    plugins: Path, name: str, burst_bits: Callable[[int], int], direction: str = "ingress"
) -> Limiter:
    """Call the real binary, as a container runtime does."""

    def call(route: Route, command: str, bits_per_s: int) -> None:
        network = {
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "bandwidth",
            "runtimeConfig": {
                "bandwidth": {f"{direction}Rate": bits_per_s, f"{direction}Burst": burst_bits(bits_per_s)}
            },
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [
                    {"name": _HOST_SIDE},
                    {"name": _POD_SIDE, "sandbox": f"/run/netns/{route.pod}"},
                ],
                "ips": [],
            },
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "bench",
            "CNI_NETNS": f"/run/netns/{route.pod}",
            "CNI_IFNAME": _POD_SIDE,
            "CNI_PATH": str(plugins),
        }
        done = subprocess.run(
            [plugins / "bandwidth"],
            input=json.dumps(network),
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"CNI bandwidth plugin: {done.stdout}{done.stderr}")

    def install(route: Route, bits_per_s: int) -> None:
        if direction == "egress":
            _make_room(route)
        call(route, "ADD", bits_per_s)

    def remove(route: Route) -> None:
        call(route, "DEL", KUBELETS_BURST_BITS)
        if direction == "ingress":  # the plugin leaves it to the end of the interface
            _unqueue(route)
        else:
            batch("tc", f"qdisc del dev {_HOST_SIDE} ingress")

    def burst_bytes(bits_per_s: int) -> int:
        return burst_bits(bits_per_s) // 8

    return Limiter(name, install, remove, burst_bytes=burst_bytes, sends=direction == "egress")


def _make_room(route: Route) -> None:
    """Remove the qdisc that remains of tokenbucket's programs, which the plugin rejects."""
    if "clsact" in _show(None, "qdisc", "show", "dev", _HOST_SIDE):
        batch("tc", f"qdisc del dev {_HOST_SIDE} clsact")


def _htb(route: Route, bits_per_s: int) -> None:
    rate, depth = f"rate {bits_per_s}bit ceil {bits_per_s}bit", _depth(bits_per_s)
    shape = f"htb {rate} burst {depth} cburst {depth} quantum 200000"  # what it takes anyway, and warns
    root = f"qdisc add dev {_HOST_SIDE} root handle 1: htb default 1"
    batch("tc", (root, f"class add dev {_HOST_SIDE} parent 1: classid 1:1 {shape}"))


def _tbf(route: Route, bits_per_s: int) -> None:
    """Install a root whose class gets another queue, so its own limit does not matter."""
    shape = f"tbf rate {bits_per_s}bit burst {_depth(bits_per_s)} latency 25ms"
    batch("tc", f"qdisc add dev {_HOST_SIDE} root handle 1: {shape}")


def _fq_codel(shape: Callable[[Route, int], None]) -> Callable[[Route, int], None]:
    """Return a limiter with a queue per flow behind a shaper."""

    def install(route: Route, bits_per_s: int) -> None:
        shape(route, bits_per_s)
        batch("tc", f"qdisc add dev {_HOST_SIDE} parent 1:1 fq_codel")

    return install


def _police(route: Route, bits_per_s: int) -> None:
    police = f"police rate {bits_per_s}bit burst {_depth(bits_per_s)} conform-exceed drop/pass"
    hook = f"qdisc replace dev {_HOST_SIDE} clsact"
    batch("tc", (hook, f"filter add dev {_HOST_SIDE} egress matchall action {police}"))


def _depth(bits_per_s: int, burst_s: float = BURST_S) -> int:
    """Return bytes, at least the least that the kernel accepts for one packet."""
    return max(int(bits_per_s * burst_s / 8), 4096)


def _unqueue(route: Route) -> None:
    batch("tc", f"qdisc del dev {_HOST_SIDE} root")


def _unpolice(route: Route) -> None:
    batch("tc", f"filter del dev {_HOST_SIDE} egress")


def limiters(plugins: Path) -> dict[str, Limiter]:
    """Return all, by name. ``plugins`` is the folder of the CNI plugins."""
    every = (
        Limiter("none", lambda *_: None, lambda _: None),
        _ours("Delay", "Delay"),
        _ours("Delay, ECN", "Delay", ecn=True),
        _ours("Delay, Fifo", "Delay", queue="Fifo"),
        _ours("Delay, Fifo, ECN", "Delay", ecn=True, queue="Fifo"),
        _ours("Drop", "Drop"),
        _plugin(plugins, "CNI plugin", lambda _: KUBELETS_BURST_BITS),
        _plugin(plugins, "CNI plugin, 50 ms", lambda bits: 8 * _depth(bits)),
        Limiter("HTB", _htb, _unqueue, burst_bytes=_depth),
        Limiter("HTB, fq_codel", _fq_codel(_htb), _unqueue, burst_bytes=_depth),
        Limiter("TBF, fq_codel", _fq_codel(_tbf), _unqueue, burst_bytes=_depth),
        Limiter("police", _police, _unpolice, burst_bytes=_depth),
        _ours("sends: Delay", "Delay", direction="egress"),
        _ours("sends: Delay, Fifo", "Delay", direction="egress", queue="Fifo"),
        _plugin(plugins, "sends: CNI plugin, 50 ms", lambda bits: 8 * _depth(bits), "egress"),
    )
    return {each.name: each for each in every}
