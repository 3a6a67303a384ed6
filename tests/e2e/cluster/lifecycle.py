"""Start and end of a cluster."""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import control_plane, namespace_node, pki, record, shape, teardown, virtual_machine, vm_node
from .binaries import Binaries, binaries
from .box import Box, open_root, start_guardian
from .cluster import CONTROL_PLANE, Cluster, component_env, failures, find
from .errors import ClusterError
from .image_store import copy_to, disk, image_store
from .images import Image, standard_images
from .layout import Layout, layout
from .record import Record
from .shape import NAMESPACE_NODES, VM_NODE, Node
from .store import cache_root, locked
from .waiting import wait_for

Say = Callable[[str], None]
_FORWARD = Path(__file__).parent / "forward.py"
_NODE_TIMEOUT_S = 120.0
_VM_TIMEOUT_S = 480.0


def quietly(_: str) -> None:
    """Print nothing."""


def up(
    say: Say = quietly,
    place: Layout | None = None,
    *,
    nodes: tuple[Node, ...] = NAMESPACE_NODES,
    vm: bool = False,
    images: Sequence[Image] = (),
) -> Cluster:
    """Return the running cluster, or start one; with ``vm`` also the node in a virtual machine.

    Every node has the given images beside the standard ones. The remains of a failed ``up`` are removed.

    Raises ClusterError naming the component that failed, with the end of its log. What was made until then
    stays, to be looked at; the next ``up`` or ``down`` removes it.
    """
    place = place or layout()
    programs = binaries(say)
    loaded = [*standard_images(programs, say), *images]
    store = image_store(loaded, programs, say)
    with locked(_lock(place)):
        cluster = find(place)
        if cluster is None or failures(cluster):
            teardown.remove(place)
            cluster = _recorded(_make(place, programs, nodes, store, say), images=_identities(loaded))
        cluster = _loaded(cluster, loaded)
        return _joined(cluster, loaded, say) if vm and VM_NODE not in cluster.nodes else cluster


def up_without_nodes(place: Layout, say: Say = quietly) -> Cluster:
    """Start a cluster of etcd and an API server alone, for objects that imitate pods and nodes.

    No program runs pods, watches nodes or collects garbage. An earlier cluster of the name is removed first.

    Raises ClusterError.
    """
    programs = binaries(say)
    with locked(_lock(place)):
        teardown.remove(place)
        _write_files(place, programs, ())
        made = _open_boxes(place, programs, ())
        _make_reachable(made)
        data = place.root / CONTROL_PLANE
        control_plane.start_etcd(made.root, programs, data)
        control_plane.start_api_server(made.root, programs, made.pki, data)
        control_plane.wait_ready(made.root, made.api)
        return _recorded(made, complete=True)


def down(place: Layout | None = None) -> None:
    """End the cluster in any state, and leave nothing. Raises ClusterError for objects that stay."""
    place = place or layout()
    with locked(_lock(place)):
        teardown.remove(place)


def join_vm(cluster: Cluster, images: Sequence[Image] = (), say: Say = quietly) -> Cluster:
    """Add the node in a virtual machine, and wait until it is ready."""
    with locked(_lock(cluster.place)):
        return _joined(cluster, [*standard_images(cluster.programs, say), *images], say)


def stop_vm(cluster: Cluster) -> None:
    """Cut the power of the virtual machine. Its Node object and its pods' objects stay."""
    cluster.root.stop(VM_NODE.name)


def start_vm(
    cluster: Cluster, images: Sequence[Image] = (), say: Say = quietly, taints: Sequence[str] = ()
) -> None:
    """Boot the virtual machine again, and wait until its node is ready.

    If its Node object was deleted, it joins again, with the taints of these keys (NoSchedule).
    """
    _run_vm(cluster, [*standard_images(cluster.programs, say), *images], say, taints)


def _identities(images: Sequence[Image]) -> tuple[str, ...]:
    return tuple(image.identity for image in images)


def _loaded(cluster: Cluster, images: Sequence[Image]) -> Cluster:
    """Return the cluster after its nodes have got the missing images."""
    missing = [image for image in images if image.identity not in cluster.record.images]
    cluster.load(missing)
    return _recorded(cluster, images=(*cluster.record.images, *_identities(missing))) if missing else cluster


def _lock(place: Layout) -> Path:
    return cache_root() / "locks" / place.cgroup


def _make(place: Layout, programs: Binaries, nodes: tuple[Node, ...], store: Path, say: Say) -> Cluster:
    since = time.monotonic()

    def timed(text: str) -> None:
        say(f"{time.monotonic() - since:5.1f} s  {text}")

    _write_files(place, programs, nodes)
    made = _open_boxes(place, programs, nodes)
    timed("nodes created")
    with ThreadPoolExecutor() as pool:
        runtimes = [pool.submit(_start_runtime, made, node, store) for node in made.nodes]
        _start_control_plane(made)
        timed("API server ready")
        for runtime in runtimes:
            runtime.result()
        timed("containerd ready")
    for node in made.nodes:
        namespace_node.start_kubelet(made.box(node.name), node, place, programs, made.pki)
    for node in made.nodes:
        _wait_node(made, node)
    timed("nodes ready")
    return _recorded(made, complete=True)


def _write_files(place: Layout, programs: Binaries, nodes: tuple[Node, ...]) -> None:
    place.programs.mkdir(parents=True)
    (place.programs / "kubectl").symlink_to(programs.kubernetes / "kubectl")
    (place.programs / "helm").symlink_to(programs.helm / "helm")
    pki.create(place.pki, (*nodes, VM_NODE))


def _open_boxes(place: Layout, programs: Binaries, nodes: tuple[Node, ...]) -> Cluster:
    """Return the root box, recorded before it starts, and the boxes of the nodes inside it."""
    env = component_env(place, programs)
    guardian = start_guardian(programs.pause_program, env)
    made = Cluster(place, programs, Record(guardian.process, nodes=nodes, port=_free_port()))
    record.save(made.record, place.record)
    root = open_root(guardian, CONTROL_PLANE, place.logs / CONTROL_PLANE, env)
    control_plane.prepare_network(root)
    boxes = {root.name: root.init}
    for node in nodes:
        boxes[node.name] = namespace_node.create(root, node, place, programs).init
    return _recorded(made, boxes=boxes)


def _recorded(cluster: Cluster, **changes: object) -> Cluster:
    """Return the same cluster with a changed record, which is on disk when this returns."""
    changed = dataclasses.replace(cluster.record, **changes)  # type: ignore[arg-type]
    record.save(changed, cluster.place.record)
    return dataclasses.replace(cluster, record=changed)


def _start_runtime(made: Cluster, node: Node, store: Path) -> None:
    copy_to(made.place.node(node.name), store)
    namespace_node.start_runtime(made.box(node.name), node, made.place, made.programs)


def _start_control_plane(made: Cluster) -> None:
    _make_reachable(made)
    data = made.place.root / CONTROL_PLANE
    control_plane.start_etcd(made.root, made.programs, data)
    control_plane.start_api_server(made.root, made.programs, made.pki, data)
    control_plane.wait_ready(made.root, made.api)
    control_plane.start_controllers(made.root, made.programs, made.pki, data)


def _make_reachable(made: Cluster) -> None:
    """Make the API server reachable from outside, as the administrator."""
    outside = f"https://127.0.0.1:{made.record.port}"
    made.kubeconfig.write_text(pki.kubeconfig(made.pki, pki.ADMIN, outside))
    _start_forward(made.root, made.record.port)


def _start_forward(root: Box, port: int) -> None:
    target = [shape.CONTROL_PLANE_IPV4, str(shape.API_PORT)]
    root.start("forward", [sys.executable, "-I", _FORWARD, str(port), *target], network=False)


def _wait_node(made: Cluster, node: Node) -> None:
    wait_for(
        lambda: node.name in made.api.ready_nodes(),
        what="the node is ready",
        among=made.box(node.name).components,
        component="kubelet",
        timeout_s=_NODE_TIMEOUT_S,
    )


def _joined(cluster: Cluster, images: Sequence[Image], say: Say) -> Cluster:
    since = time.monotonic()
    joined = _recorded(cluster, nodes=(*cluster.nodes, VM_NODE))
    vm_node.connect(cluster.root, VM_NODE)
    _run_vm(joined, images, say)
    say(f"{time.monotonic() - since:5.1f} s  virtual machine ready")
    return joined


def _run_vm(cluster: Cluster, images: Sequence[Image], say: Say, taints: Sequence[str] = ()) -> None:
    booted, files = virtual_machine.kernel(say), disk(images, cluster.programs, say)
    before = cluster.api.boots().get(VM_NODE.name)
    vm_node.boot(cluster.root, VM_NODE, booted, files, cluster.place, cluster.programs, cluster.pki, taints)
    _wait_vm(cluster, before)


def _wait_vm(cluster: Cluster, boot_before: str | None) -> None:
    """Wait for the node to be ready after another boot than ``boot_before``: for a while the API server
    calls a node ready that has lost its power.

    The machine is watched from outside, and what runs in it by what it leaves in the folder of its logs.
    """
    inside = vm_node.components(VM_NODE, cluster.place)

    def ready() -> bool:
        for name in inside.names():
            if (status := inside.exit_status(name)) is not None:
                raise ClusterError(
                    f"{inside.name}/{name}", f"ended with status {status}", log=inside.log(name)
                )
        api = cluster.api
        return api.boots().get(VM_NODE.name) not in (None, boot_before) and VM_NODE.name in api.ready_nodes()

    wait_for(
        ready,
        what="the node is ready",
        among=cluster.root.components,
        component=VM_NODE.name,
        timeout_s=_VM_TIMEOUT_S,
        step_s=0.5,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
