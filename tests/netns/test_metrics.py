"""Metrics of a real agent about real traffic."""

from __future__ import annotations

import json
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.netns.agent import PATIENCE_S, Agent, acquaint, document, drop, limit_of, policy, send, wait
from tests.netns.lab import Lab, Pod
from tests.netns.tokens import Tokens

HOST = "127.0.0.1"
BURST = 10


@pytest.fixture
def port(lab: Lab) -> int:
    """Provide a port of the node without a listener."""
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def client(lab: Lab) -> Pod:
    return lab.pod("client", ["10.1.1.2/24"])


@pytest.fixture
def web(lab: Lab, client: Pod) -> Pod:
    pod = lab.pod("web", ["10.2.1.2/24"])
    acquaint(client, pod)
    return pod


def scraped(port: int) -> Iterator[tuple[str, dict[str, str], float]]:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=PATIENCE_S) as response:
        text = response.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def value(port: int, name: str, **labels: str) -> float | None:
    """Of the one sample with these labels."""
    found = [
        value
        for sample, given, value in scraped(port)
        if sample == f"tokenbucket_{name}" and labels.items() <= given.items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def start(agent: Agent, port: int, pod: Pod, *options: str, uid: str = "1") -> None:
    """Start an agent that limits a pod to one packet per second, and serves its metrics."""
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, BURST)))
    write_pod(agent, pod, uid)
    agent.start("--metrics-address", f"{HOST}:{port}", *options)
    wait(lambda: agent.events("attached"), agent.log)


def write_pod(agent: Agent, pod: Pod, uid: str) -> None:
    given = document(pod, app="web")
    given["metadata"]["uid"] = uid
    agent.write("pods.yaml", given)


def test_a_scrape_counts_admitted_and_dropped_packets(
    lab: Lab, agent: Agent, client: Pod, web: Pod, port: int
) -> None:
    """Count exactly, and continue after a restart of the agent."""
    start(agent, port, web)
    of_web = {"namespace": "default", "pod": "web", "policy": "web", "direction": "ingress"}
    before = value(port, "pod_admitted_packets_total", **of_web)
    sent = 50
    tokens = Tokens(BURST)
    arrived = send(client, web, sent)

    def counted() -> tuple[float | None, float | None]:
        admitted = value(port, "pod_admitted_packets_total", **of_web)
        return admitted - before, value(port, "pod_dropped_packets_total", **of_web)

    admitted, dropped = counted()
    assert 0 < arrived <= admitted <= tokens.most
    assert sent <= admitted + dropped <= sent + 5, "what the kernel itself sends may come on top"
    assert value(port, "pod_rate_packets_per_second", **of_web) == 1
    assert value(port, "pod_burst_packets", **of_web) == BURST
    assert value(port, "pod_rate_bytes_per_second", **of_web) is None
    agent.stop()
    agent.start("--metrics-address", f"{HOST}:{port}")
    wait(lambda: value(port, "agent_ready"), agent.log)
    after = counted()
    assert after >= (admitted, dropped)
    assert sum(after) < 2 * sent


def live(port: int, *uids: str) -> list[dict[str, Any]]:
    """Return the live figures of pods."""
    content = json.dumps({"uids": uids}).encode()
    request = urllib.request.Request(f"http://{HOST}:{port}/v1/pods", content)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.load(response)["pods"]


def test_live_figures_agree_with_the_packets_and_with_tokenbucket_status(
    lab: Lab, agent: Agent, client: Pod, web: Pod, port: int
) -> None:
    """Show them for the uid of the pod, and nothing for another uid."""
    uid, other = str(uuid.uuid4()), str(uuid.uuid4())
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(1, BURST)))
    write_pod(agent, web, uid)
    agent.start("--live-address", f"{HOST}:{port}")
    wait(lambda: agent.events("attached"), agent.log)
    wait(lambda: agent.events("reconciled"), agent.log)
    assert live(port, other) == []
    (before,) = live(port, uid)[0]["limits"]
    sent = 50
    send(client, web, sent)
    (pod,) = live(port, uid, other)
    (limit,) = pod["limits"]
    admitted, dropped = (limit[name] - before[name] for name in ("admittedPackets", "droppedPackets"))
    assert sent <= admitted + dropped <= sent + 5, "what the kernel itself sends may come on top"
    assert dropped > 0
    assert limit["monotonicNanoseconds"] > before["monotonicNanoseconds"]
    assert (pod["pod"], pod["policies"], pod["reasons"]) == ("web", {"ingress": "web"}, [])
    assert (limit["active"], limit["packetsPerSecond"], limit["burstPackets"]) == (True, 1, BURST)
    of_status = limit_of("web")
    same = ("hooks", "direction", "policy", "mode", "exceedAction", "droppedPackets")
    assert {name: limit[name] for name in same} == {name: of_status[name] for name in same}


def test_a_pod_of_the_same_name_counts_from_zero(
    lab: Lab, agent: Agent, client: Pod, web: Pod, port: int
) -> None:
    """Give it another bucket. Prometheus treats a lower value as a reset."""
    start(agent, port, web, uid="1")
    send(client, web, 50)
    assert value(port, "pod_dropped_packets_total", pod="web") > 30
    write_pod(agent, web, uid="2")
    wait(lambda: value(port, "pod_dropped_packets_total", pod="web") == 0, agent.log)


def test_the_agent_exposes_its_state(lab: Lab, agent: Agent, web: Pod, port: int) -> None:
    """Expose active limits, deviations with their reasons, and the time of the last run."""
    start(agent, port, web, "--slots", "64")
    wait(lambda: value(port, "limits_active") == 1, agent.log)
    assert value(port, "agent_ready") == 1
    assert value(port, "slots") == 63
    assert value(port, "slots_in_use") == 1
    assert value(port, "agent_enforcement", mode="Enforce") == 1
    assert value(port, "agent_reconciles_total", result="complete") > 0
    assert value(port, "agent_last_reconcile_timestamp_seconds") > 1e9
    assert value(port, "unmetered_packets_total") == 0
    assert value(port, "pod_not_as_declared") is None
    lab.delete(web)
    wait(lambda: value(port, "limits_not_as_declared", reason="NoInterface") == 1, agent.log)
    missing = {"pod": "web", "policy": "web", "direction": "ingress", "reason": "NoInterface"}
    assert value(port, "pod_not_as_declared", **missing) == 1
    assert value(port, "limits_active") == 0


def test_sums_of_policies_replace_the_metrics_of_pods(
    lab: Lab, agent: Agent, client: Pod, web: Pod, port: int
) -> None:
    """Reduce the number of series, and count the same packets."""
    start(agent, port, web, "--no-pod-metrics")
    wait(lambda: value(port, "limits_active") == 1, agent.log)
    assert not [name for name, labels, _ in scraped(port) if "pod" in labels]

    def counted() -> float:
        names = ("policy_admitted_packets_total", "policy_dropped_packets_total")
        return sum(
            value(port, name, namespace="default", policy="web", direction="ingress") for name in names
        )

    before, sent = counted(), 50
    send(client, web, sent)
    assert sent <= counted() - before <= sent + 5, "what the kernel itself sends may come on top"


def test_the_time_of_a_change_until_the_kernel_is_counted(agent: Agent, web: Pod, port: int) -> None:
    """Count it once the run is complete."""
    start(agent, port, web)
    before = value(port, "agent_change_latency_seconds_count")
    agent.write("policy.yaml", policy("web", app="web", ingress=drop(2, BURST)))
    wait(lambda: value(port, "agent_change_latency_seconds_count") > before, agent.log)
    assert value(port, "pod_rate_packets_per_second", policy="web") == 2
    wait(lambda: value(port, "agent_oldest_pending_seconds") == 0, agent.log)


def test_an_address_in_use_blocks_no_limit(lab: Lab, agent: Agent, web: Pod, port: int) -> None:
    """Log the problem."""
    with socket.create_server((HOST, port)):
        start(agent, port, web)
        event, *_ = wait(lambda: agent.events("metrics not served"), agent.log)  # it retries
        assert event["address"] == f"{HOST}:{port}"
