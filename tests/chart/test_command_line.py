"""The commands that the chart starts exist and have these options."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.chart.chart import Chart, Manifests
from tokenbucket.cli import parser


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment as the kubelet does."""
    for name in ("NODE_NAME", "POD_NAME", "POD_NAMESPACE"):
        monkeypatch.setenv(name, f"the-{name}")


def options(manifests: Manifests, name: str) -> argparse.Namespace:
    """Parse the options as the command does. Exit if it does not know one."""
    [container] = manifests.pods()[name]["containers"]
    return parser().parse_args(container["args"])


@pytest.mark.parametrize(
    "name",
    ["tokenbucket-agent", "tokenbucket-agent-canary", "tokenbucket-controller", "tokenbucket-cleanup"],
)
def test_every_option_is_known(full: Manifests, node: None, name: str) -> None:
    """Turn everything on."""
    options(full, name)


def test_values_reach_the_agent(chart: Chart, node: None) -> None:
    """Pass each value by its option."""
    agent = {
        "slots": 1000000 // 20,
        "peers": 2**22,
        "startJitterSeconds": 7.5,
        "reportSpreadSeconds": 0,
        "readinessGates": True,
        "bandwidthAnnotations": True,
        "removeTaint": True,
        "cniResultsPath": "/run/cni",
        "probePort": 7000,
    }
    log = {"format": "text", "level": "debug"}
    rendered = chart.render({"agent": agent, "log": log, "protectedNamespaces": ["a", "b", "a"]})
    found = options(rendered, "tokenbucket-agent")
    assert found.slots == 50000
    assert found.peers == 2**22
    assert (found.start_jitter, found.report_spread) == (7.5, 0)
    assert found.readiness_gates
    assert found.bandwidth_annotations
    assert found.remove_taint
    assert found.cni_results == Path("/run/cni")
    assert found.probe_address == ("127.0.0.1", 7000)
    assert (found.log_format, found.log_level) == ("text", "debug")
    assert found.protected_namespace == ["tokenbucket-system", "a", "b"]


def test_the_probes_use_the_port_of_the_command(chart: Chart, node: None) -> None:
    """Try any port."""
    rendered = chart.render({"agent": {"probePort": 7000}, "controller": {"probePort": 7001}})
    [agent] = rendered.pods()["tokenbucket-agent"]["containers"]
    [controller] = rendered.pods()["tokenbucket-controller"]["containers"]
    asked = agent["readinessProbe"]["httpGet"]
    assert options(rendered, "tokenbucket-agent").probe_address == (asked["host"], asked["port"])
    [port] = [each for each in controller["ports"] if each["name"] == "probes"]
    assert controller["readinessProbe"]["httpGet"]["port"] == port["name"]
    assert options(rendered, "tokenbucket-controller").probe_address == ("", port["containerPort"])


def test_metrics_are_served_only_at_the_address_of_the_node(chart: Chart, node: None) -> None:
    """Take the address from the kubelet, or from a value, in either family."""

    def address(**metrics: object) -> tuple[str, int] | None:
        rendered = chart.render({"agent": {"metrics": metrics}})
        return options(rendered, "tokenbucket-agent").metrics_address

    assert address() is None
    assert address(enabled=True) == ("$(NODE_IP)", 10475)
    assert address(enabled=True, host="127.0.0.1", port=7000) == ("127.0.0.1", 7000)
    assert address(enabled=True, host="fd00::1") == ("fd00::1", 10475)


def test_metrics_of_pods_can_be_turned_off(chart: Chart, node: None) -> None:
    """Export them by default."""
    for per_pod in (True, False):
        rendered = chart.render({"agent": {"metrics": {"enabled": True, "perPod": per_pod}}})
        assert options(rendered, "tokenbucket-agent").pod_metrics is per_pod


def test_the_commands_get_their_namespace_and_release(full: Manifests) -> None:
    """Use the downward API."""
    fields = {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_IP": "status.hostIP",
    }
    for name, pod in full.pods().items():
        [container] = pod["containers"]
        given = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]}
        assert given.items() <= fields.items()
        assert set(given) == (set(fields) if "agent" in name else {"POD_NAMESPACE"})
