"""Pods on a node that joins or restarts, under traffic from their start."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.lifecycle import start_vm, stop_vm
from cluster.shape import NAMESPACE_NODES, VM_NODE
from cluster.workloads import pod
from tests.e2e.agent_log import agent_log, attached_at
from tests.e2e.flood import flood
from tests.e2e.image import layout_image, operator_image
from tests.e2e.release import Release, policy, until
from tests.observer import Sample, excess

RATE, BURST = 500_000, 65_536
LIMIT = {"rate": {"bits": RATE}, "burst": {"bytes": BURST}, "exceedAction": "Drop"}
TOLERANCE = BURST // 8
OFFERED = 4 * RATE
TAINT = "tokenbucket.dev/agent-not-ready"
HELD, BOLD = ("held-0", "held-1"), ("bold-0", "bold-1")
"""Pods that a tainted node does not take, and others that tolerate the taint."""
SLOW_S = 300
"""Long enough for an emulated machine on a busy one."""
_SPARE_ADDRESSES = 3
"""For networks that the runtime has to make twice."""
_RECORD = """
while after=$(date +%s.%N) && read eth </sys/class/net/eth0/statistics/rx_bytes; do
    echo $after $(date +%s.%N) $eth
    sleep 0.2
done
"""


@pytest.fixture(scope="module")
def machine(cluster: Cluster) -> Cluster:
    """Provide a cluster with the node."""
    if VM_NODE not in cluster.nodes:
        pytest.skip("the cluster has no node in a virtual machine")
    return cluster


@pytest.fixture(scope="module")
def careful(machine: Cluster, release: Release) -> Iterator[Release]:
    """Provide the release with agents that remove the taint."""
    assert VM_NODE in machine.nodes
    with release.installed_with(agent__removeTaint="true") as changed:
        yield changed


@pytest.fixture
def here(careful: Release) -> Iterator[Kubectl]:
    """Create a namespace with a limit, and a client on a node that stays."""
    with careful.admin.fresh_namespace("joining") as here:
        here.apply(policy("web", "web", ingress=LIMIT), pod("client", NAMESPACE_NODES[0].name))
        here.wait("condition=Ready", "pod/client", timeout_s=120)
        yield here


def place(here: Kubectl, names: tuple[str, ...], **spec: object) -> None:
    """Create pods for the node that record their traffic."""
    record = ["sh", "-c", _RECORD]
    here.apply(*(pod(name, VM_NODE.name, {"app": "web"}, record, **spec) for name in names))


def flood_what_comes(here: Kubectl) -> None:
    """Flood the first addresses that the node assigns."""
    hosts = ipaddress.IPv4Network(VM_NODE.pods_ipv4).hosts()
    gateway = next(hosts)
    pods = len(HELD) + len(BOLD) + _SPARE_ADDRESSES
    flood(here, "client", [gateway + number for number in range(1, pods + 1)], OFFERED)


def start(machine: Cluster, *taints: str) -> None:
    start_vm(machine, [operator_image(), layout_image()], taints=taints)


def attached(release: Release, names: tuple[str, ...]) -> dict[str, float]:
    """Return when the filter of each pod was attached; empty until all of them are."""
    try:
        times = attached_at(agent_log(release, VM_NODE.name))
    except ClusterError:  # the agent does not run yet
        return {}
    found = {name: times.get(f"joining/{name} ingress", 0.0) for name in names}
    return found if all(found.values()) else {}


def record(here: Kubectl, name: str, until_s: float) -> list[Sample]:
    """Return the samples of a pod, from the first act of its container until at least this time."""

    def found() -> list[Sample]:
        lines = (line.split() for line in here.run("logs", name).splitlines())
        samples = [Sample(float(line[0]), float(line[1]), int(line[2])) for line in lines if len(line) == 3]
        return samples if samples and samples[-1].after_s > until_s else []

    return until(found, timeout_s=SLOW_S)


def limited_from_then_on(here: Kubectl, name: str, attached_s: float) -> None:
    """Assert the limit from the attachment of the filter on. Print the traffic before it."""
    samples = record(here, name, attached_s + 5)
    late_s = attached_s - samples[0].after_s
    before = [each for each in samples if each.before_s < attached_s]
    over = max(0, excess(before, RATE, BURST)) if before else 0
    print(f"\n{name}: limited {late_s:+.1f} s after its first act; {over} bytes above the limit until then")
    after = [each for each in samples if each.after_s > attached_s + 0.01]
    assert excess(after, RATE, BURST) < TOLERANCE, name
    assert after[-1].bytes - after[0].bytes > 2 * RATE / 8, f"{name}: too little came to show anything"


def test_a_node_that_joins_with_the_taint_limits_its_pods_from_their_start(
    machine: Cluster, careful: Release, here: Kubectl
) -> None:
    """Flood the pods before the node exists. Pods that tolerate the taint are limited as soon as the agent
    runs.
    """
    stop_vm(machine)
    here.run("delete", "node", VM_NODE.name)
    place(here, BOLD, tolerations=[{"key": TAINT, "operator": "Exists"}])
    place(here, HELD)
    flood_what_comes(here)
    start(machine, TAINT)
    here.wait("condition=Ready", "pod", "--selector=app=web", timeout_s=SLOW_S)
    times = until(lambda: attached(careful, HELD + BOLD), here.explain, timeout_s=SLOW_S)
    for name in HELD:
        samples = record(here, name, times[name] + 5)
        assert times[name] < samples[0].after_s, name
        assert excess(samples, RATE, BURST) < TOLERANCE, name
        assert samples[-1].bytes > BURST, f"{name}: too little came to show anything"
    for name in BOLD:
        limited_from_then_on(here, name, times[name])


def test_a_restarted_node_limits_its_pods_as_soon_as_its_agent_runs(
    machine: Cluster, careful: Release, here: Kubectl
) -> None:
    """Print the delay. No taint delays pods that are bound to the node."""
    place(here, HELD)
    here.wait("condition=Ready", "pod", "--selector=app=web", timeout_s=120)
    stop_vm(machine)
    flood_what_comes(here)
    start(machine)
    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    here.wait(restarted, "pod", "--selector=app=web", timeout_s=SLOW_S)
    times = until(lambda: attached(careful, HELD), here.explain, timeout_s=SLOW_S)
    for name in HELD:
        limited_from_then_on(here, name, times[name])
