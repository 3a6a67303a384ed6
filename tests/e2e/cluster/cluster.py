"""A cluster that is up: found, asked how it is, and used. ``lifecycle`` makes and ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import control_plane, namespace_node, node_config, record, vm_node
from .api import Api
from .binaries import Binaries, binaries
from .box import Box
from .components import Components
from .errors import read_tail
from .images import Image
from .kubectl import Kubectl
from .layout import Layout, layout
from .node_shell import node_shells
from .pki import Pki
from .record import Record
from .shape import Node

CONTROL_PLANE = "control-plane"
"""Name of the root box."""
_MARK = "TOKENBUCKET_E2E_CLUSTER"
"""Every process of a cluster has this in its environment, with the cluster's directory."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, and where it keeps what it needs."""

    place: Layout
    programs: Binaries
    record: Record

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, usable from outside."""
        return self.place.kubeconfig

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl as the administrator."""
        return Kubectl(self.kubeconfig, str(self.place.programs / "kubectl"))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes."""
        return self.record.nodes

    @property
    def pki(self) -> Pki:
        """Keys and certificates."""
        return Pki(self.place.pki)

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return Api(self.kubeconfig)

    @property
    def root(self) -> Box:
        """The root box, with the control plane."""
        return self.box(CONTROL_PLANE)

    def box(self, name: str) -> Box:
        """Return the box of a node in namespaces."""
        return Box(
            name, self.record.boxes[name], self.place.logs / name, component_env(self.place, self.programs)
        )

    def components(self) -> list[Components]:
        """Return those of every box and every virtual machine."""
        machines = [vm_node.components(node, self.place) for node in self.nodes if node.kind == "vm"]
        return [*(self.box(name).components for name in self.record.boxes), *machines]

    def start_api_server(self) -> None:
        """Start it again after ``root.stop("kube-apiserver")``, and wait until it answers."""
        data = self.place.root / CONTROL_PLANE
        control_plane.start_api_server(self.root, self.programs, self.pki, data)
        control_plane.wait_ready(self.root, self.api)

    def load(self, images: Sequence[Image]) -> None:
        """Put images on every node."""
        boxes = [self.box(node.name) for node in self.nodes if node.kind == "namespace"]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda box: namespace_node.load_images(box, images, self.programs), boxes))
        machines = [node for node in self.nodes if node.kind == "vm"]
        if machines and images:
            with node_shells(self.kubectl) as shells:
                for node in machines:
                    for image in images:
                        shells.run(node.name, *node_config.import_argv(image, self.programs), timeout_s=300)


def find(place: Layout | None = None) -> Cluster | None:
    """Return the running cluster, or None. ``failures`` returns its health."""
    place = place or layout()
    found = record.load(place.record)
    if found is None or not found.complete or not all(init.alive() for init in found.boxes.values()):
        return None
    return Cluster(place, binaries(), found)


def failures(cluster: Cluster) -> list[str]:
    """Return each component that has ended, with the end of its log, and each node that is not ready."""
    ended = [
        f"{among.name}/{component}: ended with status {status}\n{read_tail(among.log(component))}"
        for among in cluster.components()
        for component in among.names()
        if (status := among.exit_status(component)) is not None
    ]
    if not cluster.api.ready():
        return [*ended, "kube-apiserver: not ready"]
    ready = cluster.api.ready_nodes()
    return ended + [f"{node.name}: not ready" for node in cluster.nodes if node.name not in ready]


def component_env(place: Layout, programs: Binaries) -> Mapping[str, str]:
    """Return the environment of the components, without that of the caller."""
    return {"PATH": programs.search_path, "HOME": str(place.root), "LANG": "C.UTF-8", _MARK: str(place.root)}
