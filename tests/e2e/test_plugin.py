"""The kubectl plugin as users run it, with a real API server, controller and agents: by ``make e2e-docs``."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.kubectl import Kubectl
from cluster.workloads import pod, server
from tests.e2e.explanations import Plugin, Result
from tests.e2e.release import NAMESPACE, Release, policy, wait_ready
from tests.e2e.traffic import address, udp
from tokenbucket.plugin.exit_codes import PluginExit

MBIT = 10**6
LIMIT = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}


@pytest.fixture(scope="module")
def shop(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """A limited pod, one with a dry run, one without a policy, and a client."""
    with release.admin.fresh_namespace("plugin") as here:
        here.apply(
            policy("web", "web", ingress=LIMIT),
            policy("api", "api", ingress=LIMIT, mode="Observe"),
            server("web", nodes[0]),
            server("api", nodes[-1]),
            pod("plain", nodes[-1]),
            pod("client", nodes[0]),
        )
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        for name in ("web", "api"):
            wait_ready(here, name, 1)
        yield here


def printed(result: Result, code: PluginExit = PluginExit.DONE) -> Any:
    """Return the JSON output of a command that ends with this status."""
    assert result.returncode == code, result
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("web", PluginExit.DONE, "enforced as declared (policy web)"),
        ("api", PluginExit.NOT_LIMITED, "Observed"),
        ("plain", PluginExit.NOT_LIMITED, "NoMatchingPolicy"),
    ],
)
def test_explain_names_the_state_of_a_pod(
    plugin: Plugin, shop: Kubectl, name: str, code: PluginExit, text: str
) -> None:
    result = plugin("explain", "pod", name, "-n", "plugin")
    assert result.returncode == code, result
    assert text in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_status_shows_each_policy_with_its_nodes(plugin: Plugin, shop: Kubectl, nodes: list[str]) -> None:
    result = plugin("status", "-n", "plugin")
    assert result.returncode == PluginExit.DONE, result  # a policy that only observes is no deviation
    for text in ("plugin/web", "plugin/api", nodes[0], nodes[-1]):
        assert text in result.stdout


def test_top_and_suggest_show_the_traffic(plugin: Plugin, shop: Kubectl) -> None:
    """Limit one pod to its rate, and suggest the offered rate for the one that is only observed."""
    with ThreadPoolExecutor() as flows:
        sent = [flows.submit(udp, shop, "client", name, 20 * MBIT, seconds=30) for name in ("web", "api")]
        plugin("top", "-n", "plugin", "--once", "--interval", "8")  # in which the flows start
        result = plugin("top", "-n", "plugin", "--once", "--interval", "4", "-o", "json")
        rows = {row["pod"]: row for row in map(json.loads, result.stdout.splitlines())}
        [each.result() for each in sent]
    assert result.returncode == PluginExit.DONE, result
    assert rows.keys() == {"web", "api"}
    assert 8 * MBIT < rows["web"]["perSecond"]["bits"] < 11 * MBIT
    assert rows["web"]["perSecond"]["dropped"] > 0
    assert 0.3 < rows["api"]["dryRunShares"]["dropped"] < 0.7
    suggested = plugin("suggest", "app=api", "-n", "plugin", "--min-seconds", "5", "--direction", "ingress")
    assert suggested.returncode == PluginExit.DONE, suggested
    assert plugin("apply", "--dry-run=server", "-f", "-", stdin=suggested.stdout, plugin="").returncode == 0
    document = printed(plugin("suggest", "app=api", "-n", "plugin", "--min-seconds", "5", "-o", "json"))
    found = document["reasoning"]["ingress"]
    highest = 8 * found["busiest"]["bytesPerSecond"]["max"]  # a sender on a busy machine catches up
    assert 19 * MBIT < found["bitsPerSecond"] <= 1.05 * highest


def test_sysdump_has_all_parts_and_no_address(plugin: Plugin, shop: Kubectl, tmp_path: Path) -> None:
    result = plugin("sysdump", "--file", "report.tar.gz")
    assert result.returncode == PluginExit.DONE, result
    with tarfile.open(tmp_path / "report.tar.gz") as archive:
        parts = {name: archive.extractfile(name) for name in archive.getnames()}
        content = {name.partition("/")[2]: file.read().decode() for name, file in parts.items() if file}
    assert {
        "policies.json",
        "tokenbucketnodes.json",
        "live.json",
        "pods.json",
        "nodes.json",
    } <= content.keys()
    assert any(
        "tokenbucket agent" in text or "attached" in text for name, text in content.items() if "logs" in name
    )
    assert content["problems.txt"] == ""
    for name in ("web", "api"):
        assert address(shop, name) not in "".join(content.values())


def test_check_tests_each_node_and_leaves_no_pod(
    plugin: Plugin, release: Release, nodes: list[str], has_fq: dict[str, bool]
) -> None:
    """Use the image of the agents: the nodes cannot pull one."""
    code = PluginExit.DONE if all(has_fq.values()) else PluginExit.DEVIATES
    result = plugin("check", *nodes, "-n", NAMESPACE, "-o", "json")
    found = {each["node"]: each["result"] for each in printed(result, code)["nodes"]}
    assert found == {node: "Delay" if has_fq[node] else "Drop" for node in nodes}
    assert release.kubectl.items("pods", "--selector=tokenbucket.dev/check") == []


def test_kubectl_completes_names_of_the_cluster(plugin: Plugin, shop: Kubectl) -> None:
    result = plugin("tokenbucket", "explain", "pod", "-n", "plugin", "w", plugin="__complete")
    assert "web" in result.stdout.splitlines(), result
