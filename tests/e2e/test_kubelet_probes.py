"""A kubelet's probes of each kind on a pod that is flooded, and limited to a tenth of that.

``TOKENBUCKET_E2E_PROBES_S`` is how long each flood lasts, in seconds; 15 unless it is set.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.kubectl import Kubectl
from cluster.workloads import HTTP_PORT, IPERF_PORT, pod
from tests.e2e.release import Release, policy, until, wait_ready
from tests.e2e.traffic import address

SECONDS = int(os.environ.get("TOKENBUCKET_E2E_PROBES_S", "15"))
_PACKET_BYTES = 64
_PAYLOAD_BYTES = _PACKET_BYTES - 42
_GRPC_PORT = 50051
_SERVE_GRPC = f"""
import grpc, concurrent.futures
SERVING = bytes([8, 1])  # a HealthCheckResponse
class Health(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Health()])
server.add_insecure_port("[::]:{_GRPC_PORT}")
server.start()
server.wait_for_termination()
"""
_SERVE: dict[str, tuple[list[str], dict[str, Any]]] = {
    "http": (
        ["sh", "-c", f"exec busybox httpd -f -p [::]:{HTTP_PORT} -h /etc"],
        {"httpGet": {"path": "/hostname", "port": HTTP_PORT}},
    ),
    "tcp": (["iperf3", "--server", f"--port={IPERF_PORT}"], {"tcpSocket": {"port": HTTP_PORT}}),
    "grpc": (["python3", "-c", _SERVE_GRPC], {"grpc": {"port": _GRPC_PORT}}),
    "exec": (["sleep", "infinity"], {"exec": {"command": ["test", "!", "-e", "/tmp/ill"]}}),
}


FLOODS: dict[str, Callable[[int], list[str]]] = {
    "64-byte packets at ten times the rate": lambda rate: [
        "--udp",
        f"--bitrate={10 * rate * _PAYLOAD_BYTES // _PACKET_BYTES}",
        f"--length={_PAYLOAD_BYTES}",
    ],
    "64 TCP flows": lambda _: ["--parallel=64"],
}


@dataclass(frozen=True)
class Case:
    """The place, the limit and the probes of a pod."""

    nodes: str = "nodes"
    """The fixture with the nodes for it."""
    action: str = "Drop"
    active: str = "Drop"
    """What the policy's status calls it."""
    rate: int = 1_000_000
    patience_s: int = 1
    """How often each probe is asked, and how long it may take."""


CASES = {
    # The node with fq may be emulated: an answer can take more than a second in peace, and 20,000 packets/s,
    # ten times the other rate, leave the kubelet too little time for what asks nothing of the network, too.
    "Delay": Case("with_fq", "Delay", "Delay", rate=200_000, patience_s=5),
    "Delay, degraded": Case("without_fq", "Delay", "Drop (degraded: no fq)"),
    "Drop": Case(),
}


def probed(name: str, node: str, patience_s: int) -> dict[str, Any]:
    """Return a pod with a container for each kind of probe, for readiness and liveness."""
    document = pod(name, node)
    [plain] = document["spec"]["containers"]
    timing = {"periodSeconds": patience_s, "timeoutSeconds": patience_s}
    document["spec"]["containers"] = [
        plain
        | {
            "name": kind,
            "command": command,
            "readinessProbe": probe | timing,
            "livenessProbe": probe | timing,
        }
        for kind, (command, probe) in _SERVE.items()
    ]
    return document


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """Return the case of the test, or any other one."""
    chosen: Case = getattr(request, "param", Case())
    return chosen


@pytest.fixture
def shop(case: Case, request: pytest.FixtureRequest, release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """Create a client on one node, and the pod with the probes on another node of the case."""
    places: list[str] = request.getfixturevalue(case.nodes)
    place = next(node for node in places if node != nodes[0])
    with release.admin.fresh_namespace("probes") as here:
        here.apply(pod("client", nodes[0]), probed("web", place, case.patience_s))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield here


def health(here: Kubectl) -> tuple[Any, ...]:
    """Return the time since which the pod is ready, and the restarts of each container."""
    status = here.get("pod", "web")["status"]
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    restarts = {each["name"]: each["restartCount"] for each in status["containerStatuses"]}
    return ready["status"], ready["lastTransitionTime"], restarts


def outcomes(here: Kubectl, result: str) -> Counter[tuple[str, str]]:
    """Return the number of probes of each container and kind with this result, from the kubelet."""
    web = here.get("pod", "web")
    text = here.run("get", "--raw", f"/api/v1/nodes/{web['spec']['nodeName']}/proxy/metrics/probes")
    [probes] = [each for each in text_string_to_metric_families(text) if each.name == "prober_probe"]
    wanted = {"pod_uid": web["metadata"]["uid"], "result": result}.items()
    return Counter(
        {
            (sample.labels["container"], sample.labels["probe_type"]): int(sample.value)
            for sample in probes.samples
            if wanted <= sample.labels.items()
        }
    )


def complaints(here: Kubectl) -> str:
    """Return the events of the kubelet about probes."""
    return here.run("get", "events", "--field-selector=reason=Unhealthy", "--output=wide")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES, indirect=True)
@pytest.mark.parametrize("flood", FLOODS)
def test_no_probe_of_a_flooded_pod_fails(shop: Kubectl, case: Case, flood: str) -> None:
    """Keep the pod ready and its containers running."""
    shop.apply(policy("web", "web", ingress={"rate": {"bits": str(case.rate)}, "exceedAction": case.action}))
    wait_ready(shop, "web", 1)
    assert shop.get("tbp", "web")["status"]["action"] == case.active
    before, good, bad = health(shop), outcomes(shop, "successful"), outcomes(shop, "failed")
    target = f"--client={address(shop, 'web')}"
    words = ["iperf3", target, f"--port={IPERF_PORT}", f"--time={SECONDS}", *FLOODS[flood](case.rate)]
    shop.exec("client", *words, timeout_s=SECONDS + 120)
    assert outcomes(shop, "failed") == bad, complaints(shop)
    assert health(shop) == before, complaints(shop)
    assert before[0] == "True"
    assert len(outcomes(shop, "successful") - good) == 2 * len(_SERVE)


def test_a_failing_probe_is_counted(shop: Kubectl) -> None:
    """Show that the test above can fail."""
    before, bad = health(shop), outcomes(shop, "failed")
    shop.run("exec", "web", "--container=exec", "--", "touch", "/tmp/ill")
    until(lambda: health(shop) != before)
    assert ("exec", "Readiness") in outcomes(shop, "failed") - bad
    assert "Readiness probe failed" in complaints(shop)
