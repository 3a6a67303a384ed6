"""An agent without contact to the API server never makes a policy look enforced."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from cluster import shape
from cluster.cluster import Cluster
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.e2e.release import Release, condition, until, wait_ready
from tests.e2e.two_limits import NAMES, TwoLimits, two_limited_pods

_UNKNOWN_S = 60
"""Documented: the age of the last report at which a node is unknown, and the write of the status."""
_SLOWER = 3
"""How much slower than documented a busy test machine may be."""
_BUSY_PORT = 6444
_TABLE = "deaf"
_BINDING = "clusterrolebinding/tokenbucket-agent"
_SERVICE = f"ip daddr {shape.KUBERNETES_SERVICE} tcp dport 443"
"""Packets of the agent: kubelet and kube-proxy have other ways to the API server."""
Fault = Callable[["Faults", str], AbstractContextManager[None]]
Record = Callable[[str, object], None]


class Faults:
    """Faults between the agent of a node and the API server."""

    def __init__(self, cluster: Cluster, release: Release, shell: NodeShell) -> None:
        self._cluster, self._release, self._shell = cluster, release, shell

    @contextmanager
    def dropped_packets(self, node: str) -> Iterator[None]:
        """Drop packets as a firewall or a broken network does: no answer, and no error."""
        with self._rules(node, f"chain a {{ type filter hook output priority -310; {_SERVICE} drop; }}"):
            yield

    @contextmanager
    def throttled(self, node: str) -> Iterator[None]:
        """Answer each request with 429, by a server in place of the API server."""
        root, pki = self._cluster.root, self._cluster.pki
        program = Path(__file__).with_name("busy_api.py")
        files = pki.certificate("apiserver"), pki.key("apiserver")
        argv = root.network_argv([sys.executable, "-I", program, str(_BUSY_PORT), *files])
        there = f"{shape.CONTROL_PLANE_IPV4}:{_BUSY_PORT}"
        old = f"tcp ct original ip daddr {shape.KUBERNETES_SERVICE} ct reply proto-src {shape.API_PORT}"
        rules = (
            f"chain a {{ type nat hook output priority -110; {_SERVICE} dnat to {there}; }}",
            f"chain b {{ type filter hook output priority 0; meta l4proto {old} reject with tcp reset; }}",
        )
        with subprocess.Popen(argv) as server:
            try:
                with self._rules(node, *rules):
                    yield
            finally:
                server.kill()

    @contextmanager
    def invalid_token(self, node: str) -> Iterator[None]:
        """Write an invalid token repeatedly, because the kubelet replaces it by a valid one."""
        uid = self._release.kubectl.get("pod", self._release.agent(node))["metadata"]["uid"]
        files = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/*/..data/token"
        token = self._shell.run(node, "sh", "-c", f"cat {files}").strip()
        loop = f"while sleep 0.5; do for file in {files}; do echo invalid >$file; done; done"
        started = self._shell.run(node, "sh", "-c", f"({loop}) >/dev/null 2>&1 & echo $!")
        try:
            yield
        finally:
            self._shell.run(node, "kill", started.strip())
            self._shell.run(node, "sh", "-c", f"for file in {files}; do echo '{token}' >$file; done")

    @contextmanager
    def no_role(self, _: str) -> Iterator[None]:
        """Remove the role of all agents, which share one."""
        kubectl = self._release.kubectl
        binding = kubectl.get(*_BINDING.split("/"))
        del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
        kubectl.run("delete", _BINDING)
        try:
            yield
        finally:
            kubectl.apply(binding)

    @contextmanager
    def _rules(self, node: str, *chains: str) -> Iterator[None]:
        table = "\n".join((f"table ip {_TABLE} {{", *chains, "}"))
        self._shell.run(node, "nft", table)
        try:
            yield
        finally:
            self._shell.run(node, "nft", f"delete table ip {_TABLE}")


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[TwoLimits]:
    """Enforce both limits, each on its own node."""
    with two_limited_pods(release, nodes, "deaf") as made:
        made.apply()
        made.wait()
        yield made


@pytest.fixture
def faults(cluster: Cluster, release: Release, shell: NodeShell) -> Faults:
    return Faults(cluster, release, shell)


@pytest.mark.parametrize(
    "given",
    [(Faults.dropped_packets, Faults.invalid_token), (Faults.throttled, Faults.no_role)],
    ids=["dropped packets, invalid token", "429, no role"],
)
def test_a_deaf_agent_makes_the_policies_of_its_node_unknown(
    shop: TwoLimits, faults: Faults, given: tuple[Fault, Fault], record_property: Record
) -> None:
    """Inject one fault per node. A pod that starts in the meantime makes no policy ready before it is
    limited.
    """
    late = [pod(f"{name}-late", node, {"app": name}) for name, node in zip(NAMES, shop.nodes, strict=True)]
    with ExitStack() as stack:
        for fault, node in zip(given, shop.nodes, strict=True):
            stack.enter_context(fault(faults, node))
        until(lambda: all(_unknown(shop, name) for name in NAMES), timeout_s=_SLOWER * 60 + 60)
        for name, node in zip(NAMES, shop.nodes, strict=True):
            age_s = _age_s(shop, name, node)
            record_property(f"{name}: seconds until it is unknown", age_s)
            assert age_s < _SLOWER * _UNKNOWN_S
        shop.kubectl.apply(*late)
        shop.kubectl.wait("condition=Ready", "pod", "--all", timeout_s=180)
        for _ in range(10):
            assert all(_unknown(shop, name) for name in NAMES)
            time.sleep(0.5)
    returned_s = time.time()
    for name in NAMES:
        wait_ready(shop.kubectl, name, 2)
        transition = condition(shop.kubectl, name, "Ready")["lastTransitionTime"]
        record_property(f"{name}: seconds until it is ready again", _unix_s(transition) - returned_s)
    shop.kubectl.delete(*late)
    shop.wait()


def _unknown(shop: TwoLimits, name: str) -> bool:
    """Return whether the status of a policy is unknown because of its node."""
    found, node = condition(shop.kubectl, name, "Ready"), dict(zip(NAMES, shop.nodes, strict=True))[name]
    reason = found.get("status"), found.get("reason")
    return reason == ("Unknown", "AgentUnavailable") and node in found["message"]


def _age_s(shop: TwoLimits, name: str, node: str) -> float:
    """Return the age of the last report of a node at the time when a policy became unknown."""
    reported = shop.kubectl.get("tbn", node)["status"]["lastSync"]
    return _unix_s(condition(shop.kubectl, name, "Ready")["lastTransitionTime"]) - _unix_s(reported)


def _unix_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
