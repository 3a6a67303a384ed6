"""``kubectl tokenbucket explain`` of pods with real causes: by ``make e2e-docs``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.cluster import Cluster
from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.documentation.blocks import ROOT
from tests.e2e.release import Release, policy, until
from tests.e2e.states_documentation import no_agent, turned_off
from tokenbucket.plugin.exit_codes import PluginExit

NAMESPACE = "explained"
DROP = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}
MANY_QUEUES = {"perPeer": {"rate": {"bits": "10M"}}}
PODS = ("two", "queue", "delayed", "observed", "off", "none", "nowhere", "shaped")
ANNOTATION = "kubernetes.io/ingress-bandwidth"
DONE, NOT_LIMITED, DEVIATES, UNKNOWN = (
    PluginExit.DONE,
    PluginExit.NOT_LIMITED,
    PluginExit.DEVIATES,
    PluginExit.UNKNOWN,
)
Explained = dict[str, Any]
Explain = Callable[..., Explained]
Plugin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plugin(release: Release, tmp_path: Path) -> Plugin:
    """Run a command of the plugin."""
    program = Path(release.admin.program)
    path = ":".join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {"PATH": path, "KUBECONFIG": str(release.admin.kubeconfig), "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [program.name, "tokenbucket", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def explain(plugin: Plugin) -> Explain:
    """Return the answer for a pod, with its causes and its exit status."""

    def run(name: str, namespace: str = NAMESPACE) -> Explained:
        done = plugin("explain", "pod", name, "-n", namespace, "-o", "json")
        found: Explained = json.loads(done.stdout or "{}")
        return found | {"status": done.returncode, "errors": done.stderr}

    return run


@pytest.fixture
def shows(explain: Explain) -> Callable[..., Explained]:
    """Wait until the first cause of a pod is the expected one. Return the answer."""

    def wait(name: str, cause: str, status: PluginExit, **options: str) -> Explained:
        found: Explained = {}

        def reached() -> bool:
            nonlocal found
            found = explain(name, **options)
            codes = [each["code"] for each in found.get("causes", [])]
            return cause in codes and found["status"] == status

        until(reached, lambda: f"{name}: {json.dumps(found, indent=1)}", timeout_s=120)
        return found

    return wait


def annotated(name: str, node: str, value: str) -> dict[str, Any]:
    document = pod(name, node)
    document["metadata"]["annotations"] = {ANNOTATION: value}
    return document


@pytest.fixture(scope="module")
def here(release: Release, nodes: list[str]) -> Iterator[Kubectl]:
    """Provide a namespace with pods and policies of many states, on one node."""
    node = nodes[0]
    with release.admin.fresh_namespace(NAMESPACE) as found:
        found.apply(
            policy("two", "two", ingress=DROP),
            policy("two-first", "two", priority=5, ingress=DROP),
            policy("host", "host", ingress=DROP),
            policy("queue", "queue", ingress=MANY_QUEUES),
            policy("delayed", "delayed", ingress={"rate": {"bits": "10M"}}),
            policy("observed", "observed", ingress=DROP, mode="Observe"),
            policy("off", "off", ingress=DROP, mode="Off"),
            policy("ended", "ended", ingress=DROP),
            policy("unscheduled", "unscheduled", ingress=DROP),
            policy("nowhere", "nowhere", ingress=DROP),
            policy("shaped", "shaped", ingress=DROP),
            *(pod(name, node) for name in PODS),
            pod("host", node, hostNetwork=True),
            pod("ended", node, command=["true"], restartPolicy="Never"),
            pod("unscheduled", "no-such-node"),
            annotated("annotated", node, "10M"),
            annotated("misspelled", node, "10M"),
        )
        running = (*PODS, "host", "annotated", "misspelled")
        found.wait("condition=Ready", *(f"pod/{name}" for name in running), timeout_s=180)
        yield found


@pytest.mark.parametrize(
    ("name", "cause", "status"),
    [
        ("two", "Enforced", DONE),
        ("none", "NoMatchingPolicy", NOT_LIMITED),
        ("host", "HostNetwork", NOT_LIMITED),
        ("observed", "Observed", NOT_LIMITED),
        ("off", "PolicyOff", NOT_LIMITED),
        ("ended", "Finished", NOT_LIMITED),
        ("unscheduled", "NotScheduled", DEVIATES),
        ("annotated", "AnnotationsNotRead", NOT_LIMITED),
    ],
)
def test_the_cause_is_named(
    here: Kubectl, shows: Callable[..., Explained], name: str, cause: str, status: PluginExit
) -> None:
    """These states need no change of the node."""
    first = shows(name, cause, status)["causes"][0]
    assert first["meaning"]
    assert first["fix"]


def test_of_two_policies_the_winner_and_its_advantage_are_named(here: Kubectl, explain: Explain) -> None:
    found = json.dumps(explain("two"))
    assert "two-first" in found
    assert "priority 5 is higher than 0" in found


def test_a_degraded_limit_names_the_cause(
    here: Kubectl, shows: Callable[..., Explained], has_fq: dict[str, bool], nodes: list[str]
) -> None:
    """Without fq, no packet can wait. On each node, the queues of all peers would be too large."""
    shows("queue", "UnboundedQueue", DEVIATES)
    if has_fq[nodes[0]]:
        shows("delayed", "Enforced", DONE)
    else:
        shows("delayed", "NoFq", DEVIATES)


def interface(release: Release, node: str, name: str) -> str:
    """Return the host-side interface of a limited pod."""
    agent = release.agent(node)

    def found() -> str:
        shown = json.loads(release.kubectl.exec(agent, "tokenbucket", "status", "-o", "json"))
        mine = (each for each in shown["limits"] if each.get("pod") == name)
        return next((str(hook["interface"]) for each in mine for hook in each["hooks"]), "")

    return until(found, lambda: f"{name} has no limit", timeout_s=120)


def test_a_pod_that_another_component_limits_too_is_named(
    here: Kubectl, shows: Callable[..., Explained], release: Release, nodes: list[str], shell: NodeShell
) -> None:
    """Shape the interface as the bandwidth plugin of CNI does."""
    device = interface(release, nodes[0], "shaped")
    shaper = ("tbf", "rate", "10mbit", "burst", "32k", "latency", "25ms")
    shell.run(nodes[0], "tc", "qdisc", "add", "dev", device, "root", *shaper)
    found = shows("shaped", "AlsoLimited", DEVIATES)
    assert device in json.dumps(found["causes"])
    shell.run(nodes[0], "tc", "qdisc", "del", "dev", device, "root")
    shows("shaped", "Enforced", DONE)


_FOREIGN = """
import socket, sys
from tests.netns import bpf_program
program = bpf_program.verdict_program(bpf_program.OK, "final_verdict")
link = bpf_program.attach_tcx(socket.if_nametoindex(sys.argv[1]), "egress", program)
print("attached", flush=True)
sys.stdin.read()
"""


def test_a_program_that_runs_first_is_named(
    here: Kubectl,
    shows: Callable[..., Explained],
    release: Release,
    nodes: list[str],
    cluster: Cluster,
) -> None:
    """Leave the agent no other attachment."""
    with release.installed_with(agent__attach="clsact", agent__enterPods="false"):
        shows("two", "Enforced", DONE)
        device = interface(release, nodes[0], "two")
        argv = cluster.box(nodes[0]).network_argv([sys.executable, "-c", _FOREIGN, device])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, env={"PYTHONPATH": str(ROOT)}, text=True, **pipes) as foreign:
            assert foreign.stdout
            assert foreign.stdout.readline()
            found = shows("two", "Shadowed", DEVIATES)
            assert "final_verdict" in json.dumps(found["causes"])
    shows("two", "Enforced", DONE)


def test_a_pod_without_an_interface_is_named(here: Kubectl, shows: Callable[..., Explained]) -> None:
    """Let the pod remove its own address."""
    shows("nowhere", "Enforced", DONE)
    here.exec("nowhere", "ip", "address", "flush", "dev", "eth0")
    shows("nowhere", "NoInterface", DEVIATES)


def test_a_policy_in_a_protected_namespace_is_named(
    release: Release, shows: Callable[..., Explained], nodes: list[str]
) -> None:
    system = Kubectl(release.admin.kubeconfig, release.admin.program, "kube-system")
    documents = (pod("explained", nodes[0]), policy("explained", "explained", ingress=DROP))
    system.apply(*documents)
    try:
        system.wait("condition=Ready", "pod/explained", timeout_s=180)
        shows("explained", "ProtectedNamespace", DEVIATES, namespace="kube-system")
    finally:
        system.delete(*documents)


def test_the_kill_switch_is_named_with_its_place(
    here: Kubectl, shows: Callable[..., Explained], release: Release, nodes: list[str]
) -> None:
    """Try the mode of the release, the override and the label of the node."""
    with turned_off(release, nodes[0]):
        assert "tokenbucket" in json.dumps(shows("two", "EnforcementOff", DEVIATES)["causes"])
    label = ("label", "node", nodes[0])
    release.admin.run(*label, "tokenbucket.dev/enforcement=Observe")
    try:
        found = shows("two", "EnforcementObserve", DEVIATES)
        assert "tokenbucket.dev/enforcement" in json.dumps(found["causes"])
    finally:
        release.admin.run(*label, "tokenbucket.dev/enforcement-")
    shows("two", "Enforced", DONE)


def test_a_node_without_its_agent_is_named(
    here: Kubectl, shows: Callable[..., Explained], release: Release, nodes: list[str]
) -> None:
    """The limit stays active, so the state is unknown and not a deviation."""
    with no_agent(release, nodes[0]):
        shows("two", "AgentGone", UNKNOWN)
    shows("two", "Enforced", DONE)


def test_an_agent_that_cannot_start_is_named(
    here: Kubectl, shows: Callable[..., Explained], release: Release
) -> None:
    release.kubectl.run("set", "image", "daemonset/tokenbucket-agent", "agent=localhost/no-such-image:1")
    try:
        assert "ErrImageNeverPull" in json.dumps(shows("two", "AgentNotReady", UNKNOWN)["causes"])
    finally:
        release.install()
    shows("two", "Enforced", DONE)


def test_annotations_are_explained_and_migrated(
    here: Kubectl, shows: Callable[..., Explained], release: Release, plugin: Plugin
) -> None:
    """A valid annotation is a limit, and an invalid one a failure. A policy with the same limit follows."""
    with release.installed_with(agent__bandwidthAnnotations="true"):
        before = shows("annotated", "Enforced", DONE)
        # The container runtime starts no pod with such a value.
        here.run("annotate", "--overwrite", "pod", "misspelled", f"{ANNOTATION}=10Mbit")
        found = shows("misspelled", "InvalidAnnotation", DEVIATES)
        assert ANNOTATION in json.dumps(found["causes"])
    migrated = plugin("migrate", "-n", NAMESPACE, "-l", "app=annotated", "-o", "yaml")
    here.run("apply", "--filename=-", stdin=migrated.stdout)
    after = shows("annotated", "Enforced", DONE)
    [old], [new] = before["limits"], after["limits"]
    assert (new["direction"], new["limit"]) == (old["direction"], old["limit"])
    assert old["policy"] != new["policy"]
