"""How long a new pod is without its limit: 200 pods come to a node whose agent knows them already."""

from __future__ import annotations

import os
import random
import select
import statistics
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass

import lab
from figures import Figure, below, print_table

from tests.netns.agent import wait
from tests.netns.lab import Pod, batch, entered
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.events import Event, EventKind
from tokenbucket.netlink.links import find_link
from tokenbucket.netlink.monitor import Monitor

PODS = 200
RATE_BITS_PER_S = 10_000_000
PAUSE_S = (0.02, 0.06)
"""Between two pods, at random, so that they keep no step with the agent."""
MEDIAN_MS, P99_MS = 20.0, 100.0


@dataclass(frozen=True)
class Arrival:
    """Milliseconds until our filter was attached, from three moments."""

    from_link_ms: float
    """From the first event of the host-side link."""
    from_address_ms: float
    """From the event of the pod's address."""
    from_command_ms: float
    """From the start of the commands that make the pod: an upper bound that trusts no event."""


def address(number: int) -> str:
    """Of one pod."""
    return f"10.201.0.{number + 1}"


class Watch(threading.Thread):
    """Reads the events of one namespace in the background, each with the time of its reading."""

    def __init__(self, pod: Pod | None = None) -> None:
        """Start the thread, in the namespace of the node or of a pod."""
        super().__init__(daemon=True)
        with entered(pod.netns) if pod else nullcontext():
            self._monitor = Monitor()
        self._seen: list[tuple[float, Event]] = []
        self._stopping = False
        self.start()

    def run(self) -> None:
        """Read until it is stopped."""
        while not self._stopping:
            if select.select([self._monitor], [], [], 0.01)[0]:
                now = time.monotonic()
                self._seen += [(now, event) for event in self._monitor.read()]

    def forget(self) -> None:
        """Drop earlier events."""
        self._seen = []

    def first(self, kind: EventKind, ifindex: int | None) -> float | None:
        """Return when the first such event was read; of filters, the first on the hook of the limit."""
        for when, event in self._seen:
            if (event.kind, event.ifindex, event.nsid) != (kind, ifindex, None):
                continue
            if kind is not EventKind.NEW_FILTER or event.hook is Hook.EGRESS:
                return when
        return None

    def close(self) -> None:
        """End the thread and close the socket."""
        self._stopping = True
        self.join()
        self._monitor.close()


def arrive(watch: Watch, pod: Pod) -> Arrival:
    """Make the interface of a pod, and wait for its limit."""
    watch.forget()
    veth = f"v-{pod.name}"
    pod.veths.append(veth)
    # Watched apart, because the node has events of addresses in a namespace only once it has a number there.
    with closing(Watch(pod)) as pod_watch:
        begin = time.monotonic()
        batch(
            "ip",
            (
                f"link add eth0 type veth peer name {veth} netns {os.getpid()}",
                f"addr add {pod.addresses[0]} dev eth0",
                "link set eth0 up",
            ),
            pod.netns,
        )
        batch("ip", f"link set {veth} up")
        with connect() as connection:
            link = find_link(connection, veth)
        if link is None:
            raise RuntimeError(f"{veth} is gone")
        attached = wait(
            lambda: watch.first(EventKind.NEW_FILTER, link.ifindex), lambda: f"filter of {veth}", 0.005
        )
    addressed = pod_watch.first(EventKind.NEW_ADDRESS, link.peer_ifindex)
    linked = watch.first(EventKind.NEW_LINK, link.ifindex)
    if linked is None or addressed is None:
        raise RuntimeError(f"{veth}: no event of the link or of its address")
    return Arrival(*(1000 * (attached - moment) for moment in (linked, addressed, begin)))


def percentile_99(values: list[float]) -> float:
    """Return the value that one in a hundred exceeds."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def arrivals(node: lab.Node) -> list[Arrival]:
    """Start all pods, one after another. Pods that have arrived stay."""
    pods = [node.lab.pod(str(number), [f"{address(number)}/32"], wire=False) for number in range(PODS)]
    node.declare("pods.yaml", lab.pod_documents(*pods))
    node.declare("policy.yaml", lab.policy_document(RATE_BITS_PER_S))
    node.start_agent()
    node.wait_for("limit not enforced as declared", after=PODS - 1)  # one line for each pod
    found = []
    with closing(Watch()) as watch:
        for pod in pods:
            time.sleep(random.uniform(*PAUSE_S))
            found.append(arrive(watch, pod))
    node.warn_if_repaired(PODS)
    return found


def report() -> bool:
    """Print the table. Returns whether every target is met."""
    with lab.node() as node:
        found = arrivals(node)
    from_link = [arrival.from_link_ms for arrival in found]
    from_address = [arrival.from_address_ms for arrival in found]
    return print_table(
        f"{PODS} pods come to a node, one by one: until they are limited",
        (
            below("from the event of the link", from_link, MEDIAN_MS, "ms"),
            below("  its 99th percentile", [percentile_99(from_link)], P99_MS, "ms"),
            Figure("from the event of the pod's address", from_address, "ms"),
            Figure("  its 99th percentile", [percentile_99(from_address)], "ms"),
            Figure("from before the pod's commands", [each.from_command_ms for each in found], "ms"),
        ),
    )


if __name__ == "__main__":
    report()
