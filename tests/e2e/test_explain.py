"""``kubectl tokenbucket explain`` of pods with real causes: by ``make e2e-docs``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.e2e.explanations import Explanations, Plugin, interface
from tests.e2e.release import Release, policy
from tests.e2e.states_documentation import turned_off
from tokenbucket.plugin.exit_codes import PluginExit

NAMESPACE = "explained"
DROP = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}
MANY_QUEUES = {"perPeer": {"rate": {"bits": "10M"}}}
PODS = ("two", "queue", "delayed", "observed", "off", "none", "nowhere", "shaped", "annotated", "misspelled")
ANNOTATION = "kubernetes.io/ingress-bandwidth"
DONE, NOT_LIMITED, DEVIATES = PluginExit.DONE, PluginExit.NOT_LIMITED, PluginExit.DEVIATES


@pytest.fixture
def explain(plugin: Plugin) -> Explanations:
    """Explain the pods of the namespace."""
    return Explanations(plugin, NAMESPACE)


def starting(name: str, node: str) -> dict[str, Any]:
    """Return a pod that gets no network, because a volume is missing. The kubelet ignores unused volumes."""
    document = pod(name, node, volumes=[{"name": "missing", "configMap": {"name": "no-such-map"}}])
    document["spec"]["containers"][0]["volumeMounts"] = [{"name": "missing", "mountPath": "/missing"}]
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
            policy("starting", "starting", ingress=DROP),
            *(pod(name, node) for name in PODS),
            pod("host", node, hostNetwork=True),
            pod("ended", node, command=["true"], restartPolicy="Never"),
            pod("unscheduled", "no-such-node"),
            starting("starting", node),
        )
        found.wait("condition=Ready", *(f"pod/{name}" for name in (*PODS, "host")), timeout_s=180)
        # The CNI plugin bandwidth would also limit the pod if it started with the annotation.
        found.run("annotate", "pod", "annotated", f"{ANNOTATION}=10M")
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
        ("starting", "NoAddress", DEVIATES),
    ],
)
def test_the_cause_is_named(
    here: Kubectl, explain: Explanations, name: str, cause: str, status: PluginExit
) -> None:
    """These states need no change of the node."""
    first = explain.shows(name, cause, status)["causes"][0]
    assert first["meaning"]
    assert first["fix"]


def test_of_two_policies_the_winner_and_its_advantage_are_named(here: Kubectl, explain: Explanations) -> None:
    found = json.dumps(explain.of("two"))
    assert "two-first" in found
    assert "priority 5 is higher than 0" in found


def test_a_degraded_limit_names_the_cause(
    here: Kubectl, explain: Explanations, has_fq: dict[str, bool], nodes: list[str]
) -> None:
    """Without fq, no packet can wait. On each node, the queues of all peers would be too large."""
    explain.shows("queue", "UnboundedQueue", DEVIATES)
    if has_fq[nodes[0]]:
        explain.shows("delayed", "Enforced", DONE)
    else:
        explain.shows("delayed", "NoFq", DEVIATES)


def test_a_pod_that_another_component_limits_too_is_named(
    here: Kubectl, explain: Explanations, release: Release, nodes: list[str], shell: NodeShell
) -> None:
    """Shape the interface as the bandwidth plugin of CNI does."""
    device = interface(release, nodes[0], "shaped")
    shaper = ("tbf", "rate", "10mbit", "burst", "32k", "latency", "25ms")
    shell.run(nodes[0], "tc", "qdisc", "add", "dev", device, "root", *shaper)
    found = explain.shows("shaped", "AlsoLimited", DEVIATES)
    assert device in json.dumps(found["causes"])
    shell.run(nodes[0], "tc", "qdisc", "del", "dev", device, "root")
    explain.shows("shaped", "Enforced", DONE)


def test_a_pod_without_an_interface_is_named(here: Kubectl, explain: Explanations) -> None:
    """Let the pod remove its own interface."""
    explain.shows("nowhere", "Enforced", DONE)
    here.exec("nowhere", "ip", "link", "delete", "eth0")
    explain.shows("nowhere", "NoInterface", DEVIATES)


def test_a_policy_in_a_protected_namespace_is_named(
    release: Release, plugin: Plugin, nodes: list[str]
) -> None:
    system = Kubectl(release.admin.kubeconfig, release.admin.program, "kube-system")
    documents = (pod("explained", nodes[0]), policy("explained", "explained", ingress=DROP))
    system.apply(*documents)
    try:
        system.wait("condition=Ready", "pod/explained", timeout_s=180)
        Explanations(plugin, "kube-system").shows("explained", "ProtectedNamespace", DEVIATES)
    finally:
        system.delete(*documents)


def test_the_kill_switch_is_named_with_its_place(
    here: Kubectl, explain: Explanations, release: Release, nodes: list[str]
) -> None:
    """Try the mode of the release, the override and the label of the node."""
    with turned_off(release, nodes[0]):
        assert "tokenbucket" in json.dumps(explain.shows("two", "EnforcementOff", DEVIATES)["causes"])
    label = ("label", "node", nodes[0])
    release.admin.run(*label, "tokenbucket.dev/enforcement=Observe")
    try:
        found = explain.shows("two", "EnforcementObserve", DEVIATES)
        assert "tokenbucket.dev/enforcement" in json.dumps(found["causes"])
    finally:
        release.admin.run(*label, "tokenbucket.dev/enforcement-")
    explain.shows("two", "Enforced", DONE)


def test_annotations_are_explained_and_migrated(
    here: Kubectl,
    explain: Explanations,
    release: Release,
    plugin: Plugin,
    nodes: list[str],
    has_fq: dict[str, bool],
) -> None:
    """A valid annotation is a limit, and an invalid one a failure. A policy with the same limit follows."""
    state = ("Enforced", DONE) if has_fq[nodes[0]] else ("NoFq", DEVIATES)
    with release.installed_with(agent__bandwidthAnnotations="true"):
        before = explain.shows("annotated", *state)
        # The container runtime starts no pod with such a value.
        here.run("annotate", "--overwrite", "pod", "misspelled", f"{ANNOTATION}=10Mbit")
        found = explain.shows("misspelled", "InvalidAnnotation", DEVIATES)
        assert ANNOTATION in json.dumps(found["causes"])
    migrated = plugin("migrate", "-n", NAMESPACE, "-l", "app=annotated", "-o", "yaml")
    here.run("apply", "--filename=-", stdin=migrated.stdout)
    after = explain.shows("annotated", *state)
    [old], [new] = before["limits"], after["limits"]
    assert (new["direction"], new["limit"]) == (old["direction"], old["limit"])
    assert old["policy"] != new["policy"]


def test_a_namespace_without_a_policy_is_named(release: Release, plugin: Plugin, nodes: list[str]) -> None:
    with release.admin.fresh_namespace("unlimited") as namespace:
        namespace.apply(pod("web", nodes[0]))
        Explanations(plugin, "unlimited").shows("web", "NoPolicy", NOT_LIMITED)
