"""The node in a virtual machine."""

from __future__ import annotations

import pytest

from cluster.cluster import Cluster, failures
from cluster.kubectl import Kubectl
from cluster.lifecycle import start_vm, stop_vm
from cluster.shape import VM_NODE
from cluster.workloads import server
from tests.e2e.image import layout_image, operator_image


@pytest.fixture
def machine(cluster: Cluster) -> Cluster:
    """Provide a cluster with the node."""
    if VM_NODE not in cluster.nodes:
        pytest.skip("the cluster has no node in a virtual machine")
    return cluster


def test_pods_of_the_virtual_machine_run_again_after_a_loss_of_power(
    machine: Cluster, kubectl: Kubectl
) -> None:
    """Restart the same pods in place, and reach them again."""
    with kubectl.fresh_namespace("power-test") as here:
        here.apply(server("survivor", VM_NODE.name))
        here.wait("condition=Ready", "pod/survivor", timeout_s=120)
        before = here.get("pod", "survivor")
        stop_vm(machine)
        start_vm(machine, [operator_image(), layout_image()])
        here.wait("jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/survivor", timeout_s=120)
        here.wait("condition=Ready", "pod/survivor", timeout_s=120)
        assert here.get("pod", "survivor")["metadata"]["uid"] == before["metadata"]["uid"]
        assert here.exec("survivor", "busybox", "wget", "-qO-", "http://127.0.0.1/") == "survivor\n"
    assert failures(machine) == []
