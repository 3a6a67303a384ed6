"""One pod with an ingress limit, one with an egress limit, and traffic through both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.kubectl import Kubectl
from cluster.node_shell import NodeShell
from cluster.workloads import pod
from tests.e2e.continuous import ContinuousTraffic
from tests.e2e.release import Release, condition, policy, until, wait_ready

RATE = 5_000_000
"""Low enough for a node with an emulated processor."""
BURST = 131_072
TOLERANCE = BURST // 8
"""Bytes: what the limit lets through in 26 ms."""
LIMIT = {"rate": {"bits": "5M"}, "burst": {"bytes": "128Ki"}, "exceedAction": "Drop"}
NAMES = ("web", "worker")
_DELAY = {**LIMIT, "exceedAction": "Delay"}
_POLICIES = {
    "Drop": {"web": {"ingress": LIMIT}, "worker": {"egress": LIMIT}},
    # In both directions: queues on the node's side and in the pods.
    "Delay": {name: {"ingress": _DELAY, "egress": _DELAY} for name in NAMES},
}


@dataclass(frozen=True, slots=True)
class TwoLimits:
    """The pod ``web`` is on the first of two nodes, the pod ``worker`` on the second. Their policies have the
    same names, and the action.
    """

    kubectl: Kubectl
    release: Release
    nodes: tuple[str, str]
    action: str

    def apply(self, **spec: object) -> None:
        """Apply the policies, with ``spec`` added to each."""
        limits = _POLICIES[self.action]
        self.kubectl.apply(*(policy(name, name, **limits[name], **spec) for name in NAMES))

    def wait(self) -> None:
        """Wait until both limits are enforced as declared, and nodes and policies report it."""
        for name, node in zip(NAMES, self.nodes, strict=True):
            wait_ready(self.kubectl, name, 1)
            assert self.kubectl.get("tbp", name)["status"]["action"] == self.action
            until(lambda node=node, name=name: name in self.active(node))  # type: ignore[misc]

    def active(self, node: str) -> set[str]:
        """Return the names of the policies that the node reports as active."""
        status = self.kubectl.get("tbn", node)["status"]
        return {
            each["name"]
            for each in status.get("policies", [])
            if each["namespace"] == self.kubectl.namespace and each["programmed"]
        }

    def programmed(self, status: str, reason: str) -> bool:
        """Return whether both policies have the condition Programmed with this status and reason."""
        found = [condition(self.kubectl, name, "Programmed") for name in NAMES]
        return all((each.get("status"), each.get("reason")) == (status, reason) for each in found)

    @contextlib.contextmanager
    def under_traffic(self) -> Iterator[tuple[ContinuousTraffic, ContinuousTraffic]]:
        """Send three times the rate for the block, to ``web`` and from ``worker``."""
        with (
            ContinuousTraffic(self.kubectl, "caller", "web", 3 * RATE) as received,
            ContinuousTraffic(self.kubectl, "worker", "sink", 3 * RATE) as sent,
        ):
            yield received, sent

    @contextlib.contextmanager
    def unbroken(self, tolerance: int = TOLERANCE) -> Iterator[None]:
        """Send the same, and assert both limits for the whole time. They are enforced and reported at the
        end.
        """
        with self.under_traffic() as flows:
            yield
            self.wait()
            for flow in flows:
                limited(flow, tolerance=tolerance)


def limited(flow: ContinuousTraffic, rate: int = RATE, tolerance: int = TOLERANCE) -> None:
    """Assert that no more arrived than the limit admits, and enough to show it."""
    excess, arrived = flow.excess(rate, BURST), flow.arrived()
    assert excess < tolerance, f"{excess} bytes too many"
    assert arrived > rate / 2, f"only {arrived:.0f} bit/s, too little to show anything"


def unlimited(flow: ContinuousTraffic) -> bool:
    """Return whether more arrives now than the limit would admit."""
    return flow.bits_per_s() > 2 * RATE


@contextlib.contextmanager
def two_limited_pods(release: Release, nodes: list[str], namespace: str) -> Iterator[TwoLimits]:
    """Create the pods on different nodes, in their own namespace, without the policies."""
    places = nodes[0], nodes[1 % len(nodes)]
    with _pods(release, namespace, places, peers=places[::-1]) as here:
        yield TwoLimits(here, release, places, "Drop")


@contextlib.contextmanager
def two_held_pods(
    release: Release, with_fq: list[str], nodes: list[str], namespace: str
) -> Iterator[TwoLimits]:
    """Create the same with Delay, on a node with ``fq``."""
    held = with_fq[0]
    other = next((node for node in nodes if node != held), held)
    with _pods(release, namespace, (held, held), peers=(other, other)) as here:
        yield TwoLimits(here, release, (held, held), "Delay")


@contextlib.contextmanager
def _pods(
    release: Release, namespace: str, places: tuple[str, str], peers: tuple[str, str]
) -> Iterator[Kubectl]:
    with release.admin.fresh_namespace(namespace) as here:
        here.apply(*map(pod, (*NAMES, "caller", "sink"), (*places, *peers)))
        here.wait("condition=Ready", "pod", "--all", timeout_s=180)
        yield here


def layouts(shell: NodeShell, node: str) -> list[str]:
    """Return the versions of pinned maps of a node. The locks are in the same folder."""
    names = shell.run(node, "ls", "/sys/fs/bpf/tokenbucket").split()
    return [name for name in names if name != "locks"]
