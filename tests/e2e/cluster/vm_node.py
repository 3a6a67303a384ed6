"""A node in a virtual machine, on a Debian kernel, linked to the others through a tap device."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from . import node_config, shape, virtual_machine
from .binaries import Binaries
from .box import Box
from .components import Components
from .layout import Layout
from .pki import Pki
from .shape import Node
from .virtual_machine import Kernel

_GUEST = Path(__file__).parent / "vm_guest.sh"


def components(node: Node, place: Layout) -> Components:
    """Return the components inside the machine. The machine itself belongs to the control plane."""
    return Components(node.name, place.logs / node.name)


def connect(root: Box, node: Node) -> None:
    """Connect the machine to the switch, and add the routes to its pods."""
    root.ip(
        f"tuntap add dev {node.link} mode tap",
        f"link set {node.link} master {shape.BRIDGE} up",
        *shape.routes((node,)),
    )


def boot(
    root: Box,
    node: Node,
    booted: Kernel,
    disk: Path,
    place: Layout,
    programs: Binaries,
    pki: Pki,
    taints: Sequence[str],
) -> None:
    """Start the machine, which continues by itself until its kubelet runs."""
    folder, logs = place.node(node.name), components(node, place).folder
    for path in (folder, logs):
        path.mkdir(parents=True, exist_ok=True)
    for ended in logs.glob("*.exit"):
        ended.unlink()
    node_config.write(folder, folder, node, programs)
    config = folder / "kubelet.json"
    config.write_text(node_config.kubelet(node, pki, None, taints))
    (folder / "addresses").write_text("".join(f"{line}\n" for line in shape.address_lines(node, "eth0")))
    (folder / "guest.env").write_text(_environment(node, programs, pki, config))
    command: list[str | Path] = [
        "env",
        "--ignore-environment",
        f"PATH={programs.search_path}",
        "HOME=/root",
        _GUEST,
        folder,
        logs,
    ]
    devices = virtual_machine.node_devices(disk, node.link, _hardware_address(node))
    argv = virtual_machine.argv(booted, [place.root], command, devices=devices)
    root.start(node.name, argv)


def _environment(node: Node, programs: Binaries, pki: Pki, config: Path) -> str:
    values = {
        "name": node.name,
        "hardware_address": _hardware_address(node),
        "kube_proxy": " ".join(node_config.proxy_argv(node, programs, pki, shape.PODS)),
        "kubelet": " ".join(node_config.kubelet_argv(node, programs, pki, config)),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _hardware_address(node: Node) -> str:
    return f"02:00:00:00:00:{node.number:02x}"
