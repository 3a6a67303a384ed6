"""``kubectl tokenbucket explain`` on nodes with faults: by ``make e2e-docs``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.cluster import Cluster
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.documentation.blocks import ROOT
from tests.e2e.explanations import Explanations, Plugin, interface
from tests.e2e.release import Release, policy, until
from tests.e2e.states_documentation import OVERRIDE, no_agent
from tests.e2e.traffic import address
from tokenbucket.plugin.exit_codes import PluginExit

NAMESPACE = "faults"
DROP = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}
DONE, DEVIATES, UNKNOWN = PluginExit.DONE, PluginExit.DEVIATES, PluginExit.UNKNOWN
AGENTS = "daemonset/tokenbucket-agent"


@pytest.fixture
def explain(plugin: Plugin) -> Explanations:
    """Explain the pods of the namespace."""
    return Explanations(plugin, NAMESPACE)


@pytest.fixture(scope="module")
def here(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """Provide two limited pods and one without a policy, on one node."""
    limited = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["free"]}]}
    with release.admin.fresh_namespace(NAMESPACE) as found:
        found.apply(
            policy("all", podSelector=limited, ingress=DROP, egress=DROP),
            *(pod(name, nodes[0]) for name in ("web", "db", "free")),
        )
        found.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield found


@pytest.fixture(scope="class")
def _classic(release: Release) -> Iterator[None]:
    """Leave the agents no other attachment than clsact on the node's side."""
    with release.installed_with(agent__attach="clsact", agent__enterPods="false"):
        yield


_FOREIGN = """
import socket, sys
from tests.netns import bpf_program
program = bpf_program.verdict_program(bpf_program.OK, "final_verdict")
link = bpf_program.attach_tcx(socket.if_nametoindex(sys.argv[1]), "egress", program)
print("attached", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("_classic", "here")
class TestFilter:
    """Faults against which another attachment would help."""

    def test_a_pod_whose_address_another_pod_takes_is_named(
        self, here: Kubectl, explain: Explanations
    ) -> None:
        """An agent that enters pods finds the interface by the namespace instead."""
        explain.shows("web", "Enforced", DONE)
        taken = (f"{address(here, 'web')}/32", "dev", "eth0")
        here.exec("free", "ip", "address", "add", *taken)
        explain.shows("web", "AddressConflict", DEVIATES)
        here.exec("free", "ip", "address", "delete", *taken)
        explain.shows("web", "Enforced", DONE)

    def test_a_program_that_runs_first_is_named(
        self, explain: Explanations, release: Release, nodes: list[str], cluster: Cluster
    ) -> None:
        """Name its interface and its id: the name of a program needs SYS_ADMIN."""
        explain.shows("web", "Enforced", DONE)
        device = interface(release, nodes[0], "web")
        argv = cluster.box(nodes[0]).network_argv([sys.executable, "-c", _FOREIGN, device])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, env={"PYTHONPATH": str(ROOT)}, text=True, **pipes) as foreign:
            assert foreign.stdout
            assert foreign.stdout.readline()
            found = explain.shows("web", "Shadowed", DEVIATES)
            assert f"at {device} egress runs before" in json.dumps(found["causes"])
        explain.shows("web", "Enforced", DONE)

    def test_a_filter_that_another_component_removes_is_named(
        self, explain: Explanations, release: Release, nodes: list[str], shell: NodeShell
    ) -> None:
        """Remove it more often than an agent repairs."""
        explain.shows("web", "Enforced", DONE)
        device = interface(release, nodes[0], "web")
        removal = f"for _ in $(seq 20); do tc filter del dev {device} egress; sleep 0.5; done"
        shell.run(nodes[0], "sh", "-c", removal)
        found = explain.shows("web", "Contended", DEVIATES)
        assert device in json.dumps(found["causes"])


def test_a_pod_on_a_node_that_is_gone_is_named(here: Kubectl, explain: Explanations) -> None:
    here.apply(pod("orphan", nodeName="gone"))
    explain.shows("orphan", "NodeMissing", UNKNOWN)


def test_a_pod_on_a_virtual_node_is_named(here: Kubectl, explain: Explanations) -> None:
    labels = {"type": "virtual-kubelet", "kubernetes.io/os": "linux"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "virtual", "labels": labels}}
    here.apply(node, pod("elsewhere", nodeName="virtual"))
    try:
        found = explain.shows("elsewhere", "NodeWithoutAgents", DEVIATES)
        assert "type=virtual-kubelet" in json.dumps(found["causes"])
    finally:
        here.delete(node)


@contextlib.contextmanager
def changed_agents(release: Release, *operations: dict[str, Any]) -> Iterator[None]:
    """Change the template of the agents for a block."""
    release.kubectl.run("patch", AGENTS, "--type=json", f"--patch={json.dumps(operations)}")
    try:
        yield
    finally:
        release.install()


def test_a_policy_that_only_the_agent_rejects_is_named(
    here: Kubectl, explain: Explanations, release: Release
) -> None:
    """Let the agents protect the namespace, and the controller not."""
    arguments = {"op": "add", "path": "/spec/template/spec/containers/0/args/-"}
    with changed_agents(release, arguments | {"value": f"--protected-namespace={NAMESPACE}"}):
        found = explain.shows("web", "AgentRejects", DEVIATES)
        assert f"namespace {NAMESPACE} is protected" in json.dumps(found["causes"])
    explain.shows("web", "Enforced", DONE)


def test_an_agent_that_cannot_start_is_named(here: Kubectl, explain: Explanations, release: Release) -> None:
    container = "/spec/template/spec/containers/0"
    image = {"op": "replace", "path": f"{container}/image", "value": "localhost/no-such-image:1"}
    with changed_agents(release, image):
        found = explain.shows("web", "AgentNotReady", UNKNOWN)
        assert "ErrImageNeverPull" in json.dumps(found["causes"])
    memory = {"op": "replace", "path": f"{container}/resources/requests/memory", "value": "1Ti"}
    limit = {"op": "replace", "path": f"{container}/resources/limits/memory", "value": "1Ti"}
    with changed_agents(release, memory, limit):
        found = explain.shows("web", "AgentNotScheduled", UNKNOWN)
        assert "Insufficient memory" in json.dumps(found["causes"])
    explain.shows("web", "Enforced", DONE)


def test_a_node_without_its_agent_is_named(
    here: Kubectl, explain: Explanations, release: Release, nodes: list[str]
) -> None:
    """The limit stays active, so the state is unknown and not a deviation. Then nothing reports a limit."""
    with no_agent(release, nodes[0]):
        explain.shows("web", "AgentGone", UNKNOWN)
        release.admin.run("delete", "tbn", nodes[0])
        explain.shows("web", "NoAgent", DEVIATES)
    explain.shows("web", "Enforced", DONE)


@contextlib.contextmanager
def cleaned_up(release: Release) -> Iterator[None]:
    """Request a cleanup of all nodes for a block."""
    override = {**OVERRIDE, "data": {"enforcement": "Off", "cleanup": "true"}}
    release.kubectl.apply(override)
    try:
        yield
    finally:
        release.kubectl.delete(override)


def test_a_cleaned_node_and_one_without_a_free_slot_are_named(
    here: Kubectl, explain: Explanations, release: Release
) -> None:
    """A cleanup allows another number of slots. Offer two for four limits."""
    with cleaned_up(release):
        explain.shows("web", "CleanedUp", DEVIATES)
        release.install(agent__slots="2")
    try:
        pods = ("web", "db")
        until(lambda: any("NoFreeSlot" in json.dumps(explain.of(each)["causes"]) for each in pods))
    finally:
        with cleaned_up(release):
            explain.shows("web", "CleanedUp", DEVIATES)
            release.install()
    for each in pods:
        explain.shows(each, "Enforced", DONE)
