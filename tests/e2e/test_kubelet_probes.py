"""A kubelet's probes of each kind on a pod that is flooded, and limited to a tenth of that.

``TOKENBUCKET_E2E_PROBES_S`` is how long each flood lasts, in seconds; 15 unless it is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import HTTP_PORT, IPERF_PORT, pod
from tests.e2e.release import Release, policy, until, wait_ready
from tests.e2e.traffic import address

RATE = 1_000_000
SECONDS = int(os.environ.get("TOKENBUCKET_E2E_PROBES_S", "15"))
_SMALL_BYTES = 64 - 42
"""Payload of a packet of 64 bytes."""
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
FLOODS = {
    "64-byte packets at ten times the rate": ["--udp", f"--bitrate={10 * RATE}", f"--length={_SMALL_BYTES}"],
    "64 TCP flows": ["--parallel=64"],
}


IN_FORCE = {
    "Delay": ("with_fq", "Delay", "Delay"),
    "Delay, degraded": ("without_fq", "Delay", "Drop (degraded: no fq)"),
    "Drop": ("nodes", "Drop", "Drop"),
}
"""The fixture with the nodes for it, the action declared, and what the policy's status calls it."""


def probed(name: str, node: str) -> dict[str, Any]:
    """A pod with a container for each kind of probe; both of its probes are asked each second."""
    document = pod(name, node)
    [plain] = document["spec"]["containers"]
    document["spec"]["containers"] = [
        plain
        | {
            "name": kind,
            "command": command,
            "readinessProbe": probe | {"periodSeconds": 1},
            "livenessProbe": probe | {"periodSeconds": 1},
        }
        for kind, (command, probe) in _SERVE.items()
    ]
    return document


@pytest.fixture
def shop(request: pytest.FixtureRequest, release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """A client on one node, and the pod with the probes on the last of the nodes that a test asks for, by the
    name of their fixture.
    """
    places: list[str] = request.getfixturevalue(getattr(request, "param", "nodes"))
    with release.admin.fresh_namespace("probes") as here:
        here.apply(pod("client", nodes[0]), probed("web", places[-1]))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield here


def health(here: Kubectl) -> tuple[Any, ...]:
    """Since when the pod is ready, and how often each container was started again."""
    status = here.get("pod", "web")["status"]
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    restarts = {each["name"]: each["restartCount"] for each in status["containerStatuses"]}
    return ready["status"], ready["lastTransitionTime"], restarts


def complaints(here: Kubectl) -> str:
    """What the kubelet says of the probes."""
    return here.run("get", "events", "--field-selector=reason=Unhealthy", "--output=wide")


@pytest.mark.parametrize(("shop", "action", "in_force"), IN_FORCE.values(), ids=IN_FORCE, indirect=["shop"])
@pytest.mark.parametrize("flood", FLOODS)
def test_no_probe_fails_on_a_pod_that_is_flooded(
    shop: Kubectl, action: str, in_force: str, flood: str
) -> None:
    """Ready all the time, and nothing started again."""
    shop.apply(policy("web", "web", ingress={"rate": {"bits": str(RATE)}, "exceedAction": action}))
    wait_ready(shop, "web", 1)
    assert shop.get("tbp", "web")["status"]["action"] == in_force
    before = health(shop)
    target = f"--client={address(shop, 'web')}"
    words = ["iperf3", target, f"--port={IPERF_PORT}", f"--time={SECONDS}", *FLOODS[flood]]
    shop.exec("client", *words, timeout_s=SECONDS + 120)
    assert health(shop) == before, complaints(shop)
    assert before[0] == "True"


def test_a_probe_that_fails_is_seen(shop: Kubectl) -> None:
    """Or the test above could not fail."""
    before = health(shop)
    shop.run("exec", "web", "--container=exec", "--", "touch", "/tmp/ill")
    until(lambda: health(shop) != before)
    assert "Readiness probe failed" in complaints(shop)
