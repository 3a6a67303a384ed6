"""A node in a box: its own network, mounts, pids and /run, on this machine's kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import cgroups, node_config, shape
from .binaries import Binaries
from .box import Box, open_box
from .images import Image
from .layout import Layout
from .pki import Pki
from .shape import Node
from .waiting import wait_for

_SETUP = Path(__file__).parent / "node_setup.sh"
_SOCKET_TIMEOUT_S = 60.0


def create(root: Box, node: Node, place: Layout, programs: Binaries) -> Box:
    """Make the node's box, with its file system and its link to the others."""
    cgroups.create(_cgroup(place, node))
    box = open_box(root, node.name, place.logs / node.name, programs.pause_program)
    _connect(root, box, node)
    folder = place.node(node.name)
    folder.mkdir(parents=True)
    box.run([_SETUP, folder, node.name, node.kind], part=f"{node.name} file system")
    return box


def start_runtime(box: Box, node: Node, place: Layout, programs: Binaries) -> None:
    """Start containerd and wait until it listens."""
    folder = place.node(node.name)
    config = node_config.write(folder, folder / "etc" / "cni" / "net.d", node, programs)
    box.start("containerd", [programs.containerd / "containerd", "--config", config])
    socket = Path(f"/proc/{box.init.pid}/root{node_config.CONTAINERD_SOCKET}")
    wait_for(
        socket.is_socket,
        what="it listens",
        among=box.components,
        component="containerd",
        timeout_s=_SOCKET_TIMEOUT_S,
    )


def load_images(box: Box, images: Sequence[Image], programs: Binaries) -> None:
    """Put images on the node."""
    for image in images:
        box.run(node_config.import_argv(image, programs), part=f"import of {image.tag} on {box.name}")


def start_kubelet(box: Box, node: Node, place: Layout, programs: Binaries, pki: Pki) -> None:
    """Start kubelet and kube-proxy; they wait for the API server by themselves."""
    config = place.node(node.name) / "kubelet.json"
    config.write_text(node_config.kubelet(node, pki, _cgroup(place, node)))
    box.start("kube-proxy", node_config.proxy_argv(node, programs, pki, shape.PODS))
    box.start("kubelet", node_config.kubelet_argv(node, programs, pki, config))


def _cgroup(place: Layout, node: Node) -> str:
    return f"{place.cgroup}/{node.name}"


def _connect(root: Box, box: Box, node: Node) -> None:
    """Create the link between node and switch, its addresses, and the routes in both directions."""
    root.ip(
        f"link add {node.link} type veth peer name eth0 netns {box.init.pid}",
        f"link set {node.link} master {shape.BRIDGE} up",
    )
    box.ip(*shape.address_lines(node, "eth0"))
    root.ip(*shape.routes((node,)))
