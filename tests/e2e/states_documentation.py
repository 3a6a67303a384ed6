"""States of the cluster in which examples of the documentation run, besides the pods of the pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import yaml

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.documentation.examples import Place
from tests.e2e.release import Release, policy

State = Callable[[Release, str], AbstractContextManager[None]]
LIMIT = {"rate": {"bits": "10M"}, "exceedAction": "Drop"}


def everywhere(release: Release) -> Kubectl:
    """Return commands for objects that name their namespaces."""
    return replace(release.admin, namespace="")


def objects(*documents: dict[str, Any]) -> State:
    """Return the state in which these objects exist."""

    @contextlib.contextmanager
    def state(release: Release, _: str) -> Iterator[None]:
        kubectl = everywhere(release)
        kubectl.apply(*documents)
        try:
            yield
        finally:
            kubectl.delete(*documents)

    return state


@contextlib.contextmanager
def without_agents(release: Release, _: str) -> Iterator[None]:
    """Uninstall the chart."""
    release.uninstall()
    yield


@contextlib.contextmanager
def turned_off(release: Release, _: str) -> Iterator[None]:
    """Set the enforcement mode Off."""
    release.enforce("Off")
    try:
        yield
    finally:
        release.enforce("Enforce")


@contextlib.contextmanager
def without_config_map(release: Release, _: str) -> Iterator[None]:
    """Delete the enforcement ConfigMap. The next installation restores it."""
    release.kubectl.run("delete", "configmap", "tokenbucket")
    yield
    release.install()


@contextlib.contextmanager
def no_agent(release: Release, node: str) -> Iterator[None]:
    """Remove the agent of a node."""
    elsewhere = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [elsewhere]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    daemon_set = ("daemonset", "tokenbucket-agent", "--type=merge")

    def patch(value: object) -> None:
        document = yaml.safe_dump({"spec": {"template": {"spec": {"affinity": value}}}})
        release.kubectl.run("patch", *daemon_set, f"--patch={document}")

    before = release.kubectl.get(*daemon_set[:2])["spec"]["template"]["spec"].get("affinity")
    patch(affinity)
    try:
        yield
    finally:
        patch(before)
        release.wait()


def in_shop(document: dict[str, Any], **metadata: object) -> dict[str, Any]:
    """Return the document in the namespace of the pages."""
    return {**document, "metadata": {**document["metadata"], "namespace": "shop", **metadata}}


@contextlib.contextmanager
def without_the_pod(release: Release, _: str) -> Iterator[None]:
    """Delete the pod that the page creates, before and after."""

    def delete() -> None:
        for namespace in ("default", "shop"):
            words = ("delete", "pod", "web", "--ignore-not-found", f"--namespace={namespace}")
            everywhere(release).run(*words)

    delete()
    yield
    delete()


def _crd(kind: str, group: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


OVERRIDE = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "tokenbucket-override", "namespace": "tokenbucket-system"},
    "data": {"enforcement": "Off"},
}
PER_PEER = {"rate": {"bits": "1M"}, "perPeer": {"rate": {"bits": "100k"}}, "exceedAction": "Drop"}
PROMETHEUS = [_crd(kind, "monitoring.coreos.com") for kind in ("PodMonitor", "PrometheusRule")]


@contextlib.contextmanager
def with_prometheus(release: Release, _: str) -> Iterator[None]:
    """Add the CRDs of Prometheus. They stay, because Helm cannot change a release whose kinds are missing."""
    release.admin.apply(*PROMETHEUS)
    yield


STATES: dict[tuple[str, str], State] = {
    ("charts/tokenbucket/README.md", "Metrics"): with_prometheus,
    ("charts/tokenbucket/README.md", "Uninstallation (2)"): without_agents,
    ("docs/migration/index.md", "Steps"): objects(
        in_shop(pod("annotated"), annotations={"kubernetes.io/ingress-bandwidth": "20M"})
    ),
    ("docs/reference/alerts.md", "TokenBucketEnforcementDisabled"): objects(OVERRIDE),
    ("docs/tasks/explain-a-pod.md", "Explain a pod"): objects(
        in_shop(policy("web", "web", priority=5, ingress=PER_PEER)),
        in_shop(policy("all", ingress=LIMIT, egress=LIMIT)),
    ),
    ("docs/tasks/explain-a-pod.md", "Find the bucket of a client"): objects(
        in_shop(policy("web", "web", ingress=PER_PEER)),
        _namespace("other"),
        {**pod("client"), "metadata": {"name": "client", "namespace": "other"}},
    ),
    ("docs/tasks/health-checks.md", "Argo CD"): objects(_namespace("argocd")),
    ("docs/tasks/limit-by-annotations.md", "Limit pods by annotations"): without_the_pod,
    ("docs/tasks/limit-from-start.md", "New pods on a running node"): without_the_pod,
    ("docs/tasks/monitor.md", "Metrics"): with_prometheus,
    ("docs/tasks/uninstall.md", "Unreachable nodes"): without_agents,
    ("docs/troubleshooting.md", "A policy is not Ready"): objects(
        in_shop(policy("delay", "web", priority=5, ingress={"rate": {"bits": "100M"}}))
    ),
    ("docs/troubleshooting.md", "An agent is not ready"): no_agent,
    ("docs/troubleshooting.md", "No limit on the node (2)"): turned_off,
    ("docs/troubleshooting.md", "A change of the enforcement mode has no effect"): without_config_map,
}


def state_of(place: Place) -> State:
    """Return the state in which an example runs."""
    key = (place.page, str(place).partition(": ")[2])
    return STATES.get(key, lambda _release, _node: contextlib.nullcontext())
