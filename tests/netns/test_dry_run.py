"""A limit in Observe mode on a real kernel: its effect if it were enforced, and the record of its traffic."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

import pytest

from tests.netns.agent import (
    PATIENCE_S,
    Agent,
    acquaint,
    document,
    drop,
    limit_of,
    policy,
    send,
    tokenbucket,
    wait,
)
from tests.netns.lab import Lab, Pod

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
BURST, SENT = 10, 50


@pytest.fixture
def client(lab: Lab) -> Pod:
    return lab.pod("client", ["10.1.1.2/24"])


@pytest.fixture
def web(lab: Lab, client: Pod) -> Pod:
    pod = lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, pod)
    return pod


@pytest.fixture
def port(lab: Lab) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def offered(port: int) -> dict[str, Any]:
    """Return the record of what the pod received, from the live figures."""
    body = json.dumps({"version": 1, "uids": [UID]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/pods", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        pods = json.loads(response.read())["pods"]
    return next((limit.get("offered", {}) for pod in pods for limit in pod["limits"]), {})


def observe(agent: Agent, web: Pod, *options: str) -> None:
    agent.write("policy.yaml", policy("web", app="web", mode="Observe", ingress=drop(1, BURST)))
    pod = document(web, app="web")
    pod["metadata"]["uid"] = UID
    agent.write("pods.yaml", pod)
    agent.start(*options)
    wait(lambda: agent.events("attached"), agent.log)


def test_the_share_of_bytes_that_would_be_dropped_is_counted(agent: Agent, client: Pod, web: Pod) -> None:
    observe(agent, web)
    send(client, web, SENT)
    limit = limit_of("web")
    assert limit
    assert limit["exceedBytes"] > 0
    seen = limit["conformBytes"] + limit["exceedBytes"]
    assert limit["dryRunShares"] == {"dropped": pytest.approx(limit["exceedBytes"] / seen)}
    assert "observed only: would drop" in tokenbucket("status").stdout


def test_the_offered_traffic_is_recorded_until_the_limit_is_enforced(
    agent: Agent, client: Pod, web: Pod, port: int
) -> None:
    observe(agent, web, "--live-address", f"127.0.0.1:{port}")

    def is_recorded() -> bool:
        send(client, web, SENT)
        return bool(offered(port))

    wait(is_recorded, agent.log)
    found, limit = offered(port), limit_of("web")
    assert limit
    assert 0 < found["bytes"] <= limit["conformBytes"] + limit["exceedBytes"]
    assert found["activeSeconds"] >= 1
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, BURST)))
    wait(lambda: not offered(port), agent.log)
