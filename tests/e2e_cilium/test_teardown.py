"""A cluster with Cilium leaves nothing on the machine."""

from __future__ import annotations

from cluster import cilium
from cluster.cilium_mode import HOST_ROUTING
from cluster.layout import layout
from cluster.lifecycle import down, up
from cluster.shape import CILIUM_NODES
from cluster.workloads import pod
from tests.e2e.image import layout_image, operator_image
from tests.e2e.leftovers import machine, members, networks_of, nothing_is_left


def test_down_leaves_nothing_of_cilium() -> None:
    """Remove its pods too, and restore every setting of the machine."""
    before = machine()
    place = layout().beside("cilium-end")
    try:
        cluster = up(place=place, nodes=CILIUM_NODES, images=[operator_image(), layout_image()])
        cilium.install(cluster)
        cilium.run_agents(cluster, HOST_ROUTING)
        kubectl = cluster.kubectl
        kubectl.run("wait", "--for=create", "serviceaccount/default")
        kubectl.apply(*(pod(f"on-{node.name}", node.name) for node in cluster.nodes))
        kubectl.wait("condition=Ready", "pod", "--all", timeout_s=120)
        processes = members(place)
        networks = networks_of(processes)
    finally:
        down(place)
    nothing_is_left(place, processes, networks)
    assert machine() == before
