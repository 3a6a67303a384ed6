"""New pods are limited from their start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.e2e.agent_log import agent_log, attached_at
from tests.e2e.agent_process import signal_agent
from tests.e2e.flood import flood_of_those_to_come
from tests.e2e.release import Release, policy, until
from tests.observer import Sample, excess

PODS = 20
RATE = 500_000
BURST = 65_536
TOLERANCE = BURST // 8
LIMIT = {"rate": {"bits": RATE}, "burst": {"bytes": BURST}, "exceedAction": "Drop"}
OFFERED = 4 * RATE
GATE = "tokenbucket.dev/RateLimited"
TAINT = "tokenbucket.dev/agent-not-ready"
FOREIGN_TAINT = "example.com/mine"

_RECORD = """
while after=$(date +%s.%N) && read eth </sys/class/net/eth0/statistics/rx_bytes; do
    echo $after $(date +%s.%N) $eth
    [ $((count += 1)) -lt 25 ] || exec sleep infinity
    sleep 0.1
done
"""


@pytest.fixture(scope="module")
def places(kubectl: Kubectl, nodes: list[str]) -> list[str]:
    """Return the nodes whose CPU is not emulated."""
    kinds = {each["metadata"]["name"]: each["metadata"]["labels"] for each in kubectl.items("nodes")}
    return [node for node in nodes if kinds[node].get("tokenbucket.test/kind") != "vm"]


@pytest.fixture
def shop(release: Release) -> Iterator[Kubectl]:
    """Create a namespace with a limit on pods with the label ``app=web``."""
    with release.admin.fresh_namespace("arrival") as here:
        here.apply(policy("web", "web", ingress=LIMIT))
        yield here


@pytest.fixture(scope="module")
def careful(release: Release) -> Iterator[Release]:
    """Turn on every feature that makes pods wait for their limit."""
    with release.installed_with(agent__readinessGates="true", agent__removeTaint="true") as changed:
        yield changed


@contextlib.contextmanager
def stopped_agent(shell: NodeShell, node: str) -> Iterator[None]:
    """Stop the agent of a node for the block, too briefly for the kubelet to restart it."""
    signal_agent(shell, node, "STOP")
    try:
        yield
    finally:
        with contextlib.suppress(AssertionError, ClusterError):  # it may have been killed meanwhile
            signal_agent(shell, node, "CONT")


def recorded(here: Kubectl) -> dict[str, list[Sample]]:
    """Return the samples of each pod from the first act of its container."""
    text = here.run("logs", "--selector=app=web", "--prefix", "--tail=-1", "--max-log-requests=100")
    found: dict[str, list[Sample]] = {}
    for line in text.splitlines():
        source, after, before, count = line.split()
        found.setdefault(source.split("/")[1], []).append(Sample(float(after), float(before), int(count)))
    return found


def attached(release: Release, places: list[str]) -> Mapping[str, float]:
    """Return the time at which the filter of each pod of the namespace was attached."""
    found: dict[str, float] = {}
    for node in places:
        for limit, time_s in attached_at(agent_log(release, node)).items():
            namespace, _, name = limit.removesuffix(" ingress").partition("/")
            if namespace == "arrival":
                found[name] = time_s
    return found


def test_the_limit_is_enforced_before_the_first_container_runs(
    release: Release, shop: Kubectl, places: list[str]
) -> None:
    """Flood every pod of a batch before it exists."""
    names = [f"web-{number}" for number in range(PODS)]
    before = attached(release, places)
    assert not before.keys() & names
    with flood_of_those_to_come(shop, places, PODS // len(places) + 3, OFFERED):
        where = [places[number % len(places)] for number in range(PODS)]
        shop.apply(
            *(
                pod(name, node, {"app": "web"}, ["sh", "-c", _RECORD])
                for name, node in zip(names, where, strict=True)
            )
        )
        shop.wait("condition=Ready", "pod", "--all", timeout_s=120)
        until(lambda: all(len(found) == 25 for found in recorded(shop).values()))
        records, times = recorded(shop), attached(release, places)
    assert records.keys() == set(names)
    late = {name: times.get(name, 0) - records[name][0].after_s for name in names}
    assert max(late.values()) < 0, late
    assert times.keys() >= set(names), times
    over = {name: excess(samples, RATE, BURST) for name, samples in records.items()}
    assert max(over.values()) < TOLERANCE, over
    reached = {name: samples[-1].bytes for name, samples in records.items()}
    assert min(reached.values()) > BURST, reached


def gated(name: str, node: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a pod with the readiness gate."""
    return pod(name, node, labels, readinessGates=[{"conditionType": GATE}])


def conditions(here: Kubectl, name: str) -> dict[str, str]:
    """Return the status of each condition by its type."""
    return {each["type"]: each["status"] for each in here.get("pod", name)["status"].get("conditions", [])}


def test_a_pod_with_the_gate_is_ready_only_when_its_limit_is_enforced(
    careful: Release, shop: Kubectl, shell: NodeShell, places: list[str]
) -> None:
    """Keep the pod waiting while the agent is stopped, although all containers are ready."""
    node = places[0]
    with stopped_agent(shell, node):
        shop.apply(gated("gated", node, {"app": "web"}))
        shop.wait("condition=ContainersReady", "pod/gated")
        assert conditions(shop, "gated")["Ready"] == "False"
        assert "gated" not in attached(careful, places)
    shop.wait("condition=Ready", "pod/gated")
    assert conditions(shop, "gated")[GATE] == "True"
    assert "gated" in attached(careful, places)


def test_a_pod_with_the_gate_that_no_policy_selects_is_ready(
    careful: Release, shop: Kubectl, places: list[str]
) -> None:
    """Wait for no limit."""
    shop.apply(*(gated(f"free-{node}", node, {"app": "free"}) for node in places))
    shop.wait("condition=Ready", "pod", "--all")
    assert all(conditions(shop, f"free-{node}")[GATE] == "True" for node in places)


def test_the_agent_never_writes_a_pod_without_the_gate(
    careful: Release, shop: Kubectl, places: list[str]
) -> None:
    """Limit the pod, and read its writers from the API server."""
    node, labels = places[0], {"app": "web"}
    shop.apply(pod("plain", node, labels), gated("waiting", node, labels))
    shop.wait("condition=Ready", "pod", "--all")
    until(lambda: attached(careful, places).keys() >= {"plain", "waiting"})
    assert GATE not in conditions(shop, "plain")
    assert len(writers_of(shop, "waiting") - writers_of(shop, "plain")) == 1


def writers_of(here: Kubectl, name: str) -> set[str]:
    """Return the names of the programs that have written a pod."""
    document = here.get("pod", name, "--show-managed-fields")
    return {each["manager"] for each in document["metadata"]["managedFields"]}


def test_a_node_with_the_taint_accepts_pods_when_its_agent_is_ready(
    careful: Release, shop: Kubectl, shell: NodeShell, places: list[str]
) -> None:
    """Limit them from their start. Keep other taints."""
    node = places[-1]
    taints = (f"{TAINT}:NoSchedule", f"{FOREIGN_TAINT}:PreferNoSchedule")
    try:
        with stopped_agent(shell, node):
            shop.run("taint", "node", node, *taints)
            shop.apply(pod("late", node, {"app": "web"}, ["sh", "-c", _RECORD]))
            unscheduled = "{.status.conditions[?(@.type=='PodScheduled')].reason}"
            shop.wait(f"jsonpath={unscheduled}=Unschedulable", "pod/late")
            signal_agent(shell, node, "KILL")
        shop.wait("condition=Ready", "pod/late", timeout_s=120)
        assert [each["key"] for each in shop.get("node", node)["spec"]["taints"]] == [FOREIGN_TAINT]
        assert attached(careful, places)["late"] < recorded(shop)["late"][0].after_s
    finally:
        left = {each["key"] for each in shop.get("node", node)["spec"].get("taints", ())}
        for key in left & {TAINT, FOREIGN_TAINT}:
            shop.run("taint", "node", node, f"{key}-")
