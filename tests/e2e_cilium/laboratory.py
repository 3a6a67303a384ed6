"""The pods of the suite: one for each limit, on one node, and those that it talks to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.kubectl import Kubectl
from cluster.shape import CILIUM_NODES
from cluster.workloads import pod
from tests.e2e.release import Release, condition, until
from tests.e2e_cilium import flow
from tests.e2e_cilium.flow import Flow
from tests.e2e_cilium.limits import FAR, HOST, LIMITS, NEAR, Limit
from tests.e2e_cilium.observer import COMMAND, samples

_COUNTERS = ("conformPackets", "exceedPackets", "reservePackets")
NODE, OTHER_NODE = (node.name for node in CILIUM_NODES)


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Pods with limits in a namespace of a cluster."""

    release: Release
    kubectl: Kubectl

    def send(self, limit: Limit, peer: str, version: int = 4, seconds: float = flow.SECONDS) -> Flow:
        """Send through a limit, from a peer or to it."""
        ends = (peer, str(limit)) if limit.direction == "ingress" else (str(limit), peer)
        return flow.send(self.kubectl, *ends, version=version, seconds=seconds)

    def ready(self, limit: Limit) -> dict[str, Any]:
        """Return the condition Ready of the limit's policy; an empty one if it has none yet."""
        return condition(self.kubectl, str(limit), "Ready")

    def counted_packets(self, limit: Limit) -> int:
        """Return the number of packets that tokenbucket has counted for a limit."""
        agent = self.release.agent(NODE)
        document = json.loads(self.release.kubectl.exec(agent, "tokenbucket", "status", "--output=json"))
        found = [each for each in document["limits"] if each.get("pod") == str(limit)]
        return sum(each[name] for each in found for name in _COUNTERS)


@contextlib.contextmanager
def laboratory(release: Release, name: str) -> Iterator[Laboratory]:
    """Make the pods and their policies in a namespace, and yield when each limit has a verdict."""
    with release.admin.fresh_namespace(name) as here:
        command = list(COMMAND)
        here.apply(
            pod(NEAR, NODE, command=command),
            pod(FAR, OTHER_NODE, command=command),
            pod(HOST, NODE, command=command, hostNetwork=True),
            *(pod(str(limit), NODE, command=command) for limit in LIMITS),
            *(limit.policy() for limit in LIMITS),
        )
        here.wait("condition=Ready", "pod", "--all", timeout_s=240)
        until(lambda: all(_is_decided(here, limit) for limit in LIMITS), timeout_s=120)
        until(lambda: all(samples(here, name) for name in (NEAR, FAR, HOST, *map(str, LIMITS))))
        yield Laboratory(release, here)


def _is_decided(kubectl: Kubectl, limit: Limit) -> bool:
    pods = kubectl.get("tbp", str(limit)).get("status", {}).get("pods", {})
    return bool(pods.get("matched") == 1 and pods["programmed"] + pods.get("failed", 0) == 1)
