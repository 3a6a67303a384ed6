"""A cluster for users: ``make cluster`` and ``make cluster-demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from cluster.cluster import Cluster, failures, find
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.layout import layout
from cluster.lifecycle import up
from cluster.versions import versions
from cluster.workloads import pod, server
from tests.e2e.image import operator_image
from tests.e2e.release import Release, until, wait_ready
from tests.e2e.traffic import udp

EXAMPLE = Path(__file__).parents[2] / "examples/policy.yaml"
NAMESPACE = "tokenbucket-demo"
"""Of the demo alone: the documentation's example uses the namespace shop."""
OFFERED_BITS_PER_S = 40_000_000
POLICIES = {"web": 2, "backend": 1}
"""Of the example, with the number of the demo's pods that each selects."""


def main() -> int:
    """Run one of the two commands. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["up", "demo"])
    parser.add_argument("--vm", action="store_true", help="with a node in a virtual machine")
    options = parser.parse_args()
    try:
        cluster = running() if options.command == "demo" else None
        if cluster is None:
            say(_intention())
            say("building the image and the missing parts of the cluster: about 10 minutes the first time")
            cluster = up(say, vm=options.vm, images=[operator_image()])
            say("installing the chart")
            Release(cluster.kubectl).install()
        if options.command == "demo":
            demo(cluster.kubectl)
        explain(cluster)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _intention() -> str:
    """Return how ``up`` treats a cluster that is there."""
    found = find(layout())
    if found is None:
        return "starting a cluster"
    if broken := failures(found):
        return f"replacing the cluster, which has failed: {'; '.join(broken)}"
    return "the cluster already runs, and keeps its objects: updating the image and the chart"


def running() -> Cluster | None:
    """Return the cluster with the chart, as it is, or ``None`` if there is none.

    Raises ClusterError if something in it failed: it may contain objects of the user.
    """
    cluster = find(layout())
    if cluster is None:
        return None
    if broken := failures(cluster):
        raise ClusterError("cluster", f"does not run; 'make cluster' replaces it: {'; '.join(broken)}")
    if not Release(cluster.kubectl).exists():
        raise ClusterError("cluster", "the chart is not installed; 'make cluster' installs it")
    return cluster


def say(text: str) -> None:
    """Print the progress."""
    print(text, flush=True)


def demo(admin: Kubectl) -> None:
    """Show the throughput of pods before, during and after the policies of the example."""
    names = [node["metadata"]["name"] for node in admin.items("nodes")]
    with admin.fresh_namespace(NAMESPACE) as here:
        here.apply(
            server("web-0", names[0], {"app": "web"}),
            server("web-1", names[-1], {"app": "web"}),
            server("db-0", names[0], {"app": "db"}),
            server("other-0", names[-1], {"app": "other"}),
            pod("client", names[0]),
        )
        here.wait("condition=Ready", "pod", "--all", timeout_s=240)
        show(here, "without a policy")
        example = [in_demo(document) for document in yaml.safe_load_all(EXAMPLE.read_text())]
        here.apply(*example)
        for name, pods in POLICIES.items():
            wait_ready(here, name, pods)
        say("\n$ kubectl apply -f examples/policy.yaml; kubectl get tbp\n" + here.run("get", "tbp"))
        show(here, "with the policies")
        here.delete(*example)
        until(lambda: not here.items("tbp"))
        say("\n$ kubectl delete -f examples/policy.yaml")
        show(here, "after the policies are deleted")


def in_demo(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of the example in the demo's namespace."""
    return {**document, "metadata": {**document["metadata"], "namespace": NAMESPACE}}


def show(here: Kubectl, when: str) -> None:
    """Print the throughput of each server pod, at a load above all limits of the example."""
    say(f"\nMbit/s received, {when} ({OFFERED_BITS_PER_S / 1e6:.0f} offered)")
    for name in ("web-0", "web-1", "db-0", "other-0"):
        rate = udp(here, "client", name, OFFERED_BITS_PER_S).bits_per_s / 1e6
        say(f"  {name:8} {rate:5.1f}  {'#' * round(rate)}")


def explain(cluster: Cluster) -> None:
    """Print how to use the cluster."""
    image = versions().debian.tag.split("/")[-1]
    say(
        f"""
The cluster is up, with the chart installed:

  export KUBECONFIG={cluster.kubeconfig}
  export PATH={cluster.place.programs}:$PATH:{Path(sys.executable).parent}
  kubectl get nodes,tbn

Limit two pods:

  kubectl create namespace shop
  kubectl --namespace shop create deployment web --image={image} --replicas=2 -- sleep infinity
  kubectl apply -f examples/policy.yaml
  kubectl --namespace shop wait tbp --all --for=condition=Ready --timeout=60s
  kubectl --namespace shop get tbp

Find out why a pod is not limited:

  kubectl --namespace shop run other --image={image} -- sleep infinity
  kubectl tokenbucket explain pod other --namespace shop

'make cluster-demo' sends traffic through limits, and 'make cluster-down' stops the cluster."""
    )


if __name__ == "__main__":
    sys.exit(main())
