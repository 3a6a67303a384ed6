"""Pods of a node that joins, or starts again, under traffic from their first moment."""

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
from tests.e2e.continuous import Sample, excess
from tests.e2e.flood import flood
from tests.e2e.image import layout_image, operator_image
from tests.e2e.release import Release, policy, until

PODS = 3
RATE, BURST = 500_000, 65_536
LIMIT = {"rate": {"bits": RATE}, "burst": {"bytes": BURST}, "exceedAction": "Drop"}
TOLERANCE = BURST // 8
OFFERED = 4 * RATE
TAINT = "tokenbucket.dev/agent-not-ready"
_AGENT_S = 480
"""An emulated processor takes minutes to compile the program."""
_RECORD = """
while after=$(date +%s.%N) && read eth </sys/class/net/eth0/statistics/rx_bytes; do
    echo $after $(date +%s.%N) $eth
    sleep 0.2
done
"""


@pytest.fixture
def machine(cluster: Cluster) -> Cluster:
    """A cluster that has the node."""
    if VM_NODE not in cluster.nodes:
        pytest.skip("the cluster has no node in a virtual machine")
    return cluster


@pytest.fixture
def here(release: Release, machine: Cluster) -> Iterator[Kubectl]:
    """Pods that are for the node, wait for it or run there, and are limited; and a client elsewhere."""
    with release.admin.fresh_namespace("joining") as here:
        here.apply(policy("web", "web", ingress=LIMIT), pod("client", NAMESPACE_NODES[0].name))
        here.wait("condition=Ready", "pod/client", timeout_s=120)
        yield here
    release.install()


def flood_what_comes(here: Kubectl) -> None:
    """To the first addresses that the node gives."""
    first = next(ipaddress.IPv4Network(VM_NODE.pods_ipv4).hosts())
    flood(here, "client", [first + number for number in range(1, PODS + 4)], OFFERED)


def webs(here: Kubectl) -> None:
    here.apply(
        *(pod(f"web-{each}", VM_NODE.name, {"app": "web"}, ["sh", "-c", _RECORD]) for each in range(PODS))
    )


def recorded(here: Kubectl, name: str) -> list[Sample]:
    """What a pod had received when, from the first thing that its container did."""
    lines = (line.split() for line in here.run("logs", name).splitlines())
    return [Sample(float(line[0]), float(line[1]), int(line[2])) for line in lines if len(line) == 3]


def attached(release: Release) -> dict[str, float]:
    """When the filter of each pod was attached; empty before that of the last one."""
    try:
        times = attached_at(agent_log(release, VM_NODE.name))
    except ClusterError:  # its container is not there yet
        return {}
    names = {f"joining/web-{number} ingress": f"web-{number}" for number in range(PODS)}
    found = {names[limit]: time_s for limit, time_s in times.items() if limit in names}
    return found if len(found) == PODS else {}


def lasts(here: Kubectl, name: str, since_s: float) -> bool:
    """Whether there is a record of five seconds and more since then."""
    samples = recorded(here, name)
    return bool(samples) and samples[-1].after_s > since_s + 5


def start(machine: Cluster, *taints: str) -> None:
    start_vm(machine, [operator_image(), layout_image()], taints=taints)


def test_a_node_that_joins_with_the_taint_limits_its_pods_from_their_first_moment(
    machine: Cluster, release: Release, here: Kubectl
) -> None:
    """No pod is placed there before its agent is ready."""
    release.install(agent__removeTaint="true")
    stop_vm(machine)
    here.run("delete", "node", VM_NODE.name)
    webs(here)
    flood_what_comes(here)
    start(machine, TAINT)
    here.wait("condition=Ready", "pod", "--selector=app=web", timeout_s=300)
    times = until(lambda: attached(release), timeout_s=_AGENT_S)
    for name, time_s in times.items():
        until(lambda name=name, time_s=time_s: lasts(here, name, time_s), timeout_s=120)
        samples = recorded(here, name)
        assert time_s < samples[0].after_s, name
        assert excess(samples, RATE, BURST) < TOLERANCE, name


@pytest.mark.parametrize("event", ["joins", "starts again"])
def test_a_node_without_the_taint_limits_its_pods_as_soon_as_its_agent_runs(
    machine: Cluster, release: Release, here: Kubectl, event: str
) -> None:
    """Until then they get what is sent; how much is printed. From then on it is the limit and no more."""
    if event == "starts again":
        webs(here)
        here.wait("condition=Ready", "pod", "--selector=app=web", timeout_s=120)
    stop_vm(machine)
    if event == "joins":
        here.run("delete", "node", VM_NODE.name)
        webs(here)
    flood_what_comes(here)
    start(machine)
    here.wait("condition=Ready", "pod", "--selector=app=web", timeout_s=300)
    times = until(lambda: attached(release), timeout_s=_AGENT_S)
    for name, time_s in times.items():
        until(lambda name=name, time_s=time_s: lasts(here, name, time_s), timeout_s=120)
        samples = recorded(here, name)
        late_s = time_s - samples[0].after_s
        before = max([each.bytes for each in samples if each.before_s < time_s], default=0)
        print(f"\n{name}: limited {late_s:+.1f} s after its first act; received {before} bytes until then")
        after = [each for each in samples if each.after_s > time_s + 0.01]
        assert excess(after, RATE, BURST) < TOLERANCE, name
