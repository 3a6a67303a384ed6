"""Time until a new annotation of a pod is enforced, on a Kubernetes cluster: ``make bench-annotations``."""

from __future__ import annotations

import random
import sys
import time

from arrival import percentile_99
from bench.cluster import NAMESPACE, PAUSE_S, admin_connection, idle_pod
from figures import Figure, below, print_table

from cluster.cluster import Cluster, find
from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up
from tests.e2e.agent_log import agent_log
from tests.e2e.image import operator_image
from tests.e2e.release import Release, until

ANNOTATION = "kubernetes.io/ingress-bandwidth"
CHANGES = 100
P99_MS = 1000.0
FIRST = 10_000_000


def changes(cluster: Cluster, release: Release, here: Kubectl, node: str) -> list[float]:
    """Change the annotation again and again. Return the ms from each request to the new rate."""
    document = idle_pod("web", node, "web")
    document["metadata"]["annotations"] = {ANNOTATION: str(FIRST)}
    here.apply(document)
    asked: dict[int, float] = {}

    def limits() -> dict[int, float]:
        lines = (line for line in agent_log(release, node) if line.event == "limit set")
        return {int(line.details["bits_per_s"]): line.time_s for line in lines}

    until(lambda: FIRST in limits(), timeout_s=120)
    with admin_connection(cluster, f"/api/v1/namespaces/{NAMESPACE}/pods/web") as request:
        for number in range(CHANGES):
            time.sleep(random.uniform(*PAUSE_S))
            rate = FIRST + 1000 * (number + 1)
            asked[rate] = request({"metadata": {"annotations": {ANNOTATION: str(rate)}}})
    until(lambda: max(asked) in limits(), timeout_s=60)
    found = limits()
    return [1000 * (found[rate] - time_s) for rate, time_s in asked.items() if rate in found]


def main() -> int:
    """Measure, and print a table. Return the exit status."""
    was_up = find() is not None
    cluster = up(lambda text: print(text, file=sys.stderr), images=[operator_image()])
    release = Release(cluster.kubectl)
    node = next(each.name for each in cluster.nodes if each.kind == "namespace")
    try:
        release.install(agent__bandwidthAnnotations="true")
        with cluster.kubectl.fresh_namespace(NAMESPACE) as here:
            times = changes(cluster, release, here, node)
    finally:
        if not was_up:
            down()
    met = print_table(
        f"A new annotation of a running pod; {CHANGES} times",
        (
            Figure("from the request to the new rate", times, "ms"),
            below("  its 99th percentile", [percentile_99(times)], P99_MS, "ms"),
        ),
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
