"""The cluster of the other tests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.cluster import Cluster, failures
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell, node_shells
from cluster.workloads import pod, server, service


@pytest.fixture(scope="module")
def pods(cluster: Cluster, kubectl: Kubectl) -> Iterator[Kubectl]:
    """Create a server and a client on each node."""
    with kubectl.fresh_namespace("cluster-test") as here:
        documents = [
            make(f"{kind}-{node.name}", node.name, {"app": kind})
            for node in cluster.nodes
            for kind, make in (("server", server), ("client", pod))
        ]
        here.apply(*documents, service("servers", {"app": "server"}))
        here.wait("condition=Ready", "pod", "--all")
        yield here


@pytest.fixture(scope="module")
def shell(kubectl: Kubectl) -> Iterator[NodeShell]:
    """Return commands on every node."""
    with node_shells(kubectl) as shells:
        yield shells


def addresses(kubectl: Kubectl, name: str) -> list[str]:
    """Return the IPv4 and IPv6 address of the pod."""
    return [entry["ip"] for entry in kubectl.get("pod", name)["status"]["podIPs"]]


def test_every_node_is_ready(cluster: Cluster) -> None:
    """Find no ended component and no node that is not ready."""
    assert failures(cluster) == []


def test_pods_reach_each_other_across_nodes(cluster: Cluster, pods: Kubectl) -> None:
    """Connect each node with each, over IPv4 and IPv6."""
    for source in cluster.nodes:
        for target in cluster.nodes:
            both = addresses(pods, f"server-{target.name}")
            assert [":" in address for address in both] == [False, True]
            for address in both:
                pods.exec(f"client-{source.name}", "ping", "-c1", "-W5", address)


def test_a_command_in_a_pod_returns_its_output(cluster: Cluster, pods: Kubectl) -> None:
    """Run it on every node."""
    for node in cluster.nodes:
        assert pods.exec(f"client-{node.name}", "hostname") == f"client-{node.name}\n"


def test_a_service_leads_to_pods_on_every_node(cluster: Cluster, pods: Kubectl) -> None:
    """Use its IPv4 and its IPv6 address from each node."""
    everywhere = {f"server-{node.name}" for node in cluster.nodes}
    for address in pods.get("service", "servers")["spec"]["clusterIPs"]:
        host = f"[{address}]" if ":" in address else address
        fetch = f"for i in $(seq 30); do busybox wget -qO- -T5 http://{host}/; done"
        for node in cluster.nodes:
            assert set(pods.exec(f"client-{node.name}", "sh", "-c", fetch).split()) == everywhere


def test_a_pod_reaches_the_api_server(cluster: Cluster, pods: Kubectl) -> None:
    """Use its service account, as an operator does."""
    ask = (
        "import json, os, ssl, urllib.request; folder = '/var/run/secrets/kubernetes.io/serviceaccount/';"
        "context = ssl.create_default_context(cafile=folder + 'ca.crt');"
        "host = os.environ['KUBERNETES_SERVICE_HOST'];"
        "answer = urllib.request.urlopen(f'https://{host}/version', context=context, timeout=60);"
        "print(answer.read().decode())"
    )
    for node in cluster.nodes:
        answer = json.loads(pods.exec(f"client-{node.name}", "python3", "-c", ask))
        assert answer["gitVersion"].startswith("v1.")


def test_the_cni_result_of_a_pod_is_on_its_node_only(
    cluster: Cluster,
    pods: Kubectl,
    shell: NodeShell,
) -> None:
    """Give each node its own cache."""
    for node in cluster.nodes:
        found = shell.run(node.name, "grep", "-rhoE", "(server|client)-node-[a-z]+", "/var/lib/cni/results")
        assert set(found.split()) == {f"server-{node.name}", f"client-{node.name}"}


def test_a_node_shows_the_interfaces_and_programs_of_its_own_network(
    cluster: Cluster, shell: NodeShell
) -> None:
    """Separate /sys and pinned programs of the nodes."""
    names = {node.name for node in cluster.nodes}
    for name in names:
        shell.run(name, "mkdir", f"/sys/fs/bpf/{name}")
    for node in cluster.nodes:
        assert shell.run(node.name, "hostname").strip() == node.name
        in_sys = set(shell.run(node.name, "ls", "/sys/class/net").split())
        links = json.loads(shell.run(node.name, "ip", "-json", "link"))
        assert in_sys - {"bonding_masters"} == {link["ifname"] for link in links}
        assert names & set(shell.run(node.name, "ls", "/sys/fs/bpf").split()) == {node.name}
    for name in names:
        shell.run(name, "rmdir", f"/sys/fs/bpf/{name}")


_ATTACH = """
ip link add probe0 type veth peer name probe1
trap "ip link delete probe0" EXIT
printf '%s\\n' "qdisc add dev probe0 clsact" \
    "filter add dev probe0 ingress bpf direct-action bytecode '1,6 0 0 4294967295'" | tc -batch -
"""


def test_a_program_for_traffic_control_can_be_attached_on_every_node(
    cluster: Cluster, shell: NodeShell
) -> None:
    """Use clsact of a veth of the test, and ``fq`` if the kernel of the node has it."""
    for node in cluster.nodes:
        more = "tc qdisc add dev probe0 root fq" if node.kind == "vm" else ""
        shell.run(node.name, "sh", "-ec", _ATTACH + more)


def test_pods_continue_during_an_outage_of_the_api_server(cluster: Cluster, pods: Kubectl) -> None:
    """Start the API server again with all its objects."""
    before = {pod["metadata"]["uid"] for pod in pods.items("pods")}
    cluster.root.stop("kube-apiserver")
    try:
        assert not cluster.api.ready()
        assert any("kube-apiserver: ended with status" in failure for failure in failures(cluster))
    finally:
        cluster.start_api_server()
    assert {pod["metadata"]["uid"] for pod in pods.items("pods")} == before
    for node in cluster.nodes:
        assert pods.exec(f"client-{node.name}", "hostname") == f"client-{node.name}\n"
    assert failures(cluster) == []
