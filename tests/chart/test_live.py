"""Live figures: one Service with one port, and a role that opens it and nothing else."""

from __future__ import annotations

import pytest

from tests.chart.chart import Chart, ChartError, Manifests
from tests.chart.rights import What, rights
from tests.chart.test_command_line import node, options  # noqa: F401 - a fixture
from tokenbucket.core.api.live import PORT_NAME

SERVICE = "tokenbucket-live"
VIEWER = "tokenbucket-live-viewer"


def test_the_role_opens_one_port_of_one_service(default: Manifests) -> None:
    """Grant no right to list, to watch, to forward ports, or to reach pods and nodes."""
    role = default.one("Role", VIEWER)
    assert role["metadata"]["namespace"] == "tokenbucket-system"
    proxy = What("", "services/proxy", f"{SERVICE}:{PORT_NAME}")
    assert rights(role) == {proxy: frozenset({"create"})}
    [port] = default.one("Service", SERVICE)["spec"]["ports"]
    assert port["name"] == PORT_NAME


def test_no_other_role_reaches_a_proxy(full: Manifests) -> None:
    for role in (*full.of("ClusterRole"), *full.of("Role")):
        if role["metadata"]["name"] != VIEWER:
            assert not [
                what for what in rights(role) if "proxy" in what.resource or "portforward" in what.resource
            ]


@pytest.mark.usefixtures("node")
def test_the_service_leads_to_the_relay_and_the_relay_to_the_agents(chart: Chart) -> None:
    """Use the ports of the values on the way from the Service to the agents."""
    rendered = chart.render({"live": {"port": 7001, "agentPort": 7002}})
    service = rendered.one("Service", SERVICE)["spec"]
    deployment = rendered.one("Deployment", "tokenbucket-controller")["spec"]["template"]
    assert service["selector"].items() <= deployment["metadata"]["labels"].items()
    [controller] = deployment["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in controller["ports"]}
    [port] = service["ports"]
    relay = options(rendered, "tokenbucket-controller")
    assert relay.live_address == ("", ports[port["targetPort"]]) == ("", 7001)
    assert options(rendered, "tokenbucket-agent").live_address == ("$(NODE_IP)", relay.agent_live_port)
    assert relay.agent_live_port == 7002


def test_agents_declare_no_live_port(default: Manifests) -> None:
    """Keep the scheduler from reserving it on the node, where a conflict would keep the agent away."""
    [agent] = default.pods()["tokenbucket-agent"]["containers"]
    assert "ports" not in agent


def test_viewers_are_bound_in_the_namespace_of_the_release(chart: Chart) -> None:
    viewers = [{"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}]
    binding = chart.render({"live": {"viewers": viewers}}).one("RoleBinding", VIEWER)
    assert binding["subjects"] == viewers
    assert binding["roleRef"]["name"] == VIEWER
    assert binding["metadata"]["namespace"] == "tokenbucket-system"


def test_nothing_listens_if_live_figures_are_off(chart: Chart) -> None:
    rendered = chart.render({"live": {"enabled": False}})
    assert not [each for each in rendered.documents if "live" in each["metadata"]["name"]]
    for name in ("tokenbucket-agent", "tokenbucket-controller"):
        [container] = rendered.pods()[name]["containers"]
        assert not [word for word in container["args"] if "live" in word]


def test_the_network_policy_permits_requests_from_users_to_agents(chart: Chart) -> None:
    network = {"controller": {"networkPolicy": {"enabled": True}}}
    [policy] = chart.render(network).of("NetworkPolicy")
    [rule] = policy["spec"]["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": 10478}]}
    assert 10477 in [port["port"] for port in policy["spec"]["egress"][0]["ports"]]
    [policy] = chart.render(network | {"live": {"enabled": False}}).of("NetworkPolicy")
    assert policy["spec"]["ingress"] == []
    assert 10477 not in [port["port"] for port in policy["spec"]["egress"][0]["ports"]]


@pytest.mark.parametrize("value", ["controller.probePort", "controller.metrics.port"])
def test_two_listeners_of_the_controller_cannot_share_a_port(chart: Chart, value: str) -> None:
    ports = {
        "controller.probePort": {"probePort": 7000},
        "controller.metrics.port": {"metrics": {"enabled": True, "port": 7000}},
    }
    with pytest.raises(ChartError, match=rf"live\.port: 7000 is also {value}; set another port"):
        chart.render({"live": {"port": 7000}, "controller": ports[value]})


def test_two_listeners_of_a_node_cannot_share_a_port(chart: Chart) -> None:
    metrics = {"agent": {"metrics": {"enabled": True, "port": 7000}}}
    with pytest.raises(ChartError, match=r"live\.agentPort: 7000 is also agent\.metrics\.port"):
        chart.render({"live": {"agentPort": 7000}} | metrics)
