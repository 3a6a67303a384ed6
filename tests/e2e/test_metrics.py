"""Metrics of a cluster, scraped over the network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.release import CONTROLLER, Release, policy, until, wait_ready


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """Create a limited pod on each node, and one that cannot be limited."""
    with (
        release.installed_with(agent__metrics__enabled="true", controller__metrics__enabled="true"),
        release.admin.fresh_namespace("metrics") as here,
    ):
        here.apply(
            policy("web", "web", ingress={"rate": {"bits": "80M"}, "exceedAction": "Drop"}),
            *(pod(f"web-{node}", node, labels={"app": "web"}) for node in nodes),
        )
        wait_ready(here, "web", len(nodes))
        yield here


def scraped(kubectl: Kubectl, name: str) -> list[Sample]:
    """Return all samples of a pod, from its named port, through the API server."""
    found = kubectl.get("pod", name)
    [container] = found["spec"]["containers"]
    [port] = [each["containerPort"] for each in container["ports"] if each["name"] == "metrics"]
    namespace = found["metadata"]["namespace"]
    text = kubectl.run("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics")
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """Return the value of the sample with these labels."""
    wanted = labels.items()
    return sum(
        each.value for each in samples if each.name == f"tokenbucket_{name}" and wanted <= each.labels.items()
    )


def test_an_agent_exposes_the_metrics_of_its_node(shop: Kubectl, release: Release, nodes: list[str]) -> None:
    """Expose limits, the agent itself, and answers of the API server."""
    for node in nodes:
        samples = scraped(release.kubectl, release.agent(node))
        assert value(samples, "agent_ready") == 1
        assert value(samples, "limits_active") == 1
        assert value(samples, "agent_last_reconcile_timestamp_seconds") > 0
        assert value(samples, "agent_report_timestamp_seconds") > 0
        assert value(samples, "api_requests_total", method="GET", code="200") > 0
        limited = [each.labels for each in samples if each.name == "tokenbucket_pod_rate_bytes_per_second"]
        assert limited == [
            {"namespace": "metrics", "pod": f"web-{node}", "policy": "web", "direction": "ingress"}
        ]
        assert value(samples, "pod_rate_bytes_per_second") == 10**7


def test_the_leading_controller_exposes_the_metrics_of_the_cluster(
    shop: Kubectl, release: Release, nodes: list[str]
) -> None:
    """Expose no series of policies and agents in other replicas."""

    def has_series() -> bool:
        pods = release.kubectl.items("pods", f"--selector={CONTROLLER}")
        names = [each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"]]
        replicas = [scraped(release.kubectl, name) for name in names]
        leaders = [each for each in replicas if value(each, "controller_leader") == 1]
        exporters = [each for each in replicas if value(each, "policies")]
        return (
            len(leaders) == 1
            and exporters == leaders
            and value(leaders[0], "policies", reason="Programmed") == 1
            and value(leaders[0], "policy_pods", policy="web", state="programmed") == len(nodes)
            and value(leaders[0], "agents", ready="true") == len(nodes)
        )

    until(has_series)
