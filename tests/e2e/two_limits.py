"""One pod limited in what it receives and one in what it sends, and traffic through both limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.kubectl import Kubectl
from cluster.workloads import pod
from tests.e2e.continuous import ContinuousTraffic
from tests.e2e.release import Release, condition, policy, until, wait_ready

RATE = 10_000_000
BURST = 262_144
TOLERANCE = BURST // 8
"""Bytes: what the limit lets through in 26 ms."""
LIMIT = {"rate": {"bits": "10M"}, "burst": {"bytes": "256Ki"}, "exceedAction": "Drop"}
POLICIES = (policy("web", "web", ingress=LIMIT), policy("worker", "worker", egress=LIMIT))
_NAMES = ("web", "worker")


@dataclass(frozen=True, slots=True)
class TwoLimits:
    """The pod ``web`` is on the first of two nodes, the pod ``worker`` on the second. Their policies have the
    same names.
    """

    kubectl: Kubectl
    release: Release
    nodes: tuple[str, str]

    def wait(self) -> None:
        """Until both limits are in force, and the nodes and the policies say so."""
        for name, node in zip(_NAMES, self.nodes, strict=True):
            wait_ready(self.kubectl, name, 1)
            until(lambda node=node, name=name: name in self.in_force(node))  # type: ignore[misc]

    def in_force(self, node: str) -> set[str]:
        """Names of the policies that are, as the node tells it."""
        status = self.kubectl.get("tbn", node)["status"]
        return {
            each["name"]
            for each in status.get("policies", [])
            if each["namespace"] == self.kubectl.namespace and each["programmed"]
        }

    def programmed(self, status: str, reason: str) -> bool:
        """Whether both policies have the condition Programmed with that status and reason."""
        found = [condition(self.kubectl, name, "Programmed") for name in _NAMES]
        return all((each.get("status"), each.get("reason")) == (status, reason) for each in found)

    @contextlib.contextmanager
    def under_traffic(self) -> Iterator[tuple[ContinuousTraffic, ContinuousTraffic]]:
        """Three times the rate for the block: what ``web`` receives, and what ``worker`` sends."""
        with (
            ContinuousTraffic(self.kubectl, "caller", "web", 3 * RATE) as received,
            ContinuousTraffic(self.kubectl, "worker", "sink", 3 * RATE) as sent,
        ):
            yield received, sent

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """The same; and in all that time no more comes through than the limits let. At the end they are in
        force, and said to be.
        """
        with self.under_traffic() as flows:
            yield
            self.wait()
            for flow in flows:
                limited(flow)


def limited(flow: ContinuousTraffic, rate: int = RATE) -> None:
    """Asserts that no more came than the limit lets through, and enough to show it."""
    excess, arrived = flow.excess(rate, BURST), flow.arrived()
    assert excess < TOLERANCE, f"{excess} bytes too many"
    assert arrived > rate / 2, f"only {arrived:.0f} bit/s, too little to show anything"


def unlimited(flow: ContinuousTraffic) -> bool:
    """Whether more comes now than the limit would let through."""
    return flow.bits_per_s() > 2 * RATE


@contextlib.contextmanager
def two_limited_pods(release: Release, nodes: list[str], namespace: str) -> Iterator[TwoLimits]:
    """The pods, in a namespace of their own, without the policies."""
    first, second = nodes[0], nodes[1 % len(nodes)]
    with release.admin.fresh_namespace(namespace) as here:
        here.apply(pod("web", first), pod("sink", first), pod("caller", second), pod("worker", second))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield TwoLimits(here, release, (first, second))
