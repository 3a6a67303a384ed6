"""On a real cluster: how soon a new pod is limited, how soon a new rate is enforced, what the agent takes.

Run as ``make bench-cluster``: the harness's cluster is made if it is not up, and the chart installed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from arrival import percentile_99
from figures import Figure, below, must_be, print_table
from run import machine

from cluster.api import _context
from cluster.cluster import Cluster, find
from cluster.images import PAUSE_TAG
from cluster.kubectl import Kubectl
from cluster.lifecycle import down, up
from cluster.node_shell import NodeShell, node_shells
from cluster.workloads import pod
from tests.e2e.agent_log import agent_log, attached_at
from tests.e2e.agent_process import processor_s, resident_bytes
from tests.e2e.flood import flood_of_those_to_come
from tests.e2e.image import operator_image
from tests.e2e.release import Release, policy, until, wait_ready

NAMESPACE = "bench"
BATCHES, BATCH = 5, 20
ARRIVING = {"rate": {"bits": "1M"}, "burst": {"bytes": "16Ki"}, "exceedAction": "Drop"}
OFFERED = 4_000_000
"""Bits per second that are sent to each pod."""
GATE = "tokenbucket.dev/RateLimited"
NO_RESULTS = "/var/lib/tokenbucket-no-results"
CHANGES, CHANGED_PODS = 100, 30
PAUSE_S = (0.1, 0.6)
"""Between two changes, at random, so that they keep no step with the agent."""
NODE_PODS = 110
IDLE_S, SETTLE_S = 60.0, 150.0
"""The kubelet writes the status of each pod once more within two minutes."""
MEDIAN_MS, P99_MS = 300.0, 1000.0
MEMORY_MIB, PROCESSOR_PERCENT = 64.0, 0.5
_RESULTS = """
for each in /var/lib/cni/results/*-eth0; do stat --format=%.9Y "$each"; cat "$each"; echo; done
"""


@dataclass(frozen=True)
class Bench:
    """What the measurements work with."""

    cluster: Cluster
    release: Release
    shell: NodeShell
    here: Kubectl
    nodes: Sequence[str]


@dataclass(frozen=True)
class Arrival:
    """One pod, in milliseconds from when the container runtime had written down its network."""

    attached_ms: float
    first_act_ms: float
    """Until the first thing that its container does."""
    ready_ms: float
    """Until the kubelet calls it ready, to the second."""
    unlimited_bytes: int
    """What it was sent before its limit was attached."""


def arrivals(bench: Bench, *, gate: bool = False) -> list[Arrival]:
    """Batches of pods, whose first act is to tell the time. Each is sent too much before it is there."""
    bench.here.apply(policy("all", "arrival", ingress=ARRIVING))
    found: list[Arrival] = []
    for batch in range(BATCHES):
        names = [f"arrival-{batch}-{number}" for number in range(BATCH)]
        with flood_of_those_to_come(bench.here, bench.nodes, BATCH // len(bench.nodes) + 3, OFFERED):
            bench.here.apply(*(newcomer(bench, number, name, gate) for number, name in enumerate(names)))
            bench.here.wait("condition=Ready", "pod", "--all", timeout_s=120)
            until(lambda names=names: attachments(bench).keys() >= set(names))
        found += arrived(bench, names)
        bench.here.run("delete", "pod", "--all", timeout_s=120)
    bench.here.run("delete", "tbp", "--all")
    return found


def newcomer(bench: Bench, number: int, name: str, gate: bool) -> dict[str, Any]:  # noqa: FBT001
    """Return a pod that prints the time; with the gate, it is ready only when its limit is enforced."""
    command = ["sh", "-c", "date +%s.%N; exec sleep infinity"]
    gates = {"readinessGates": [{"conditionType": GATE}]} if gate else {}
    return pod(name, bench.nodes[number % len(bench.nodes)], {"app": "arrival"}, command, **gates)


def arrived(bench: Bench, names: Sequence[str]) -> Iterator[Arrival]:
    """Yield the records of pods that run and receive no more traffic."""
    networks, filters = networks_made(bench), attachments(bench)
    unlimited = {name: count for node in bench.nodes for name, count in unlimited_bytes(bench, node, names)}
    ready = {each["metadata"]["name"]: ready_s(each) for each in bench.here.items("pods")}
    for name in names:
        first_act_s = float(bench.here.run("logs", name).split()[0])
        times = (filters[name], first_act_s, ready[name])
        attached, first_act, shown = (1000 * (each - networks[name]) for each in times)
        yield Arrival(attached, first_act, shown, unlimited[name])


def ready_s(document: Mapping[str, Any]) -> float:
    """Return when a pod became ready, to the second."""
    [since] = [
        each["lastTransitionTime"] for each in document["status"]["conditions"] if each["type"] == "Ready"
    ]
    return datetime.fromisoformat(since).timestamp()


def unlimited_bytes(bench: Bench, node: str, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """For each of these pods on a node, what its interface was given and its slot has not let through."""
    agent = bench.release.agent(node)
    shown = json.loads(bench.release.kubectl.exec(agent, "tokenbucket", "status", "-o", "json"))
    for limit in shown["limits"]:
        if limit.get("namespace") == NAMESPACE and limit["pod"] in names:
            [hook] = limit["hooks"]
            counter = f"/sys/class/net/{hook['interface']}/statistics/tx_bytes"
            passed = limit["conformBytes"] + limit["delayedBytes"] + limit["reserveBytes"]
            yield limit["pod"], int(bench.shell.run(node, "cat", counter)) - passed


def attachments(bench: Bench) -> Mapping[str, float]:
    """By pod, when it was limited."""
    found: dict[str, float] = {}
    for node in bench.nodes:
        for limit, time_s in attached_at(agent_log(bench.release, node)).items():
            if limit.startswith(f"{NAMESPACE}/"):
                found[limit.split()[0].partition("/")[2]] = time_s
    return found


def networks_made(bench: Bench) -> Mapping[str, float]:
    """By pod, when the file with the CNI plugins' result was written."""
    found: dict[str, float] = {}
    for node in bench.nodes:
        lines = bench.shell.run(node, "sh", "-c", _RESULTS).split("\n")
        for stamp, text in zip(lines[::2], lines[1::2], strict=False):
            arguments = dict(json.loads(text)["cniArgs"])
            if arguments["K8S_POD_NAMESPACE"] == NAMESPACE:
                found[arguments["K8S_POD_NAME"]] = float(stamp)
    return found


def arrival_figures(found: Sequence[Arrival]) -> list[Figure]:
    attached = [each.attached_ms for each in found]
    acts = [each.first_act_ms for each in found]
    late = sum(each.attached_ms >= each.first_act_ms for each in found)
    return [
        Figure("from the sandbox's network to attached", attached, "ms"),
        Figure("  its 99th percentile", [percentile_99(attached)], "ms"),
        Figure("  to the container's first act", acts, "ms"),
        Figure("  sent before it was attached", [each.unlimited_bytes for each in found], "bytes"),
        Figure(f"of {len(found)} pods, attached only after that", [late], "pods"),
    ]


def report_arrival(bench: Bench) -> bool:
    """With the CNI plugins' results, without, and with the gate. Returns whether every target is met."""
    *figures, late = arrival_figures(arrivals(bench))
    met = print_table(
        f"{BATCHES * BATCH} pods come in batches of {BATCH}; the agent reads the CNI result cache",
        [*figures, must_be(late.name, late.samples, 0, late.unit)],
    )
    bench.release.install(agent__cniResultsPath=NO_RESULTS)
    print_table("The same where the agent finds no such cache: podIP alone", arrival_figures(arrivals(bench)))
    bench.release.install(agent__cniResultsPath=NO_RESULTS, agent__readinessGates="true")
    found = arrivals(bench, gate=True)
    early = sum(each.ready_ms < each.attached_ms - 1000 for each in found)
    gated = must_be(f"of {len(found)} pods, ready before that", [early], 0, "pods")
    ready = Figure(
        "from the sandbox's network to ready, to the second", [each.ready_ms for each in found], "ms"
    )
    met &= print_table("The same with the readiness gate", [*arrival_figures(found), ready, gated])
    bench.release.install()
    return met


def changes(bench: Bench, nodes: Sequence[str]) -> tuple[list[float], list[float]]:
    """New rates for pods of some nodes, one after the other. Returns how many ms each took, from the request
    to the first pod and to the last.
    """
    names = [f"web-{number}" for number in range(CHANGED_PODS)]
    placed = [idle_pod(name, nodes[number % len(nodes)], "web") for number, name in enumerate(names)]
    limit = {"rate": {"bits": 10_000_000}, "burst": {"bytes": "256Ki"}, "exceedAction": "Drop"}
    bench.here.apply(policy("web", "web", ingress=limit), *placed)
    bench.here.wait("condition=Ready", "pod", "--all", timeout_s=120)
    wait_ready(bench.here, "web", CHANGED_PODS)
    asked: dict[int, float] = {}
    begin = time.time()
    path = f"/apis/tokenbucket.dev/v1alpha1/namespaces/{NAMESPACE}/tokenbucketpolicies/web"
    with admin_connection(bench.cluster, path) as request:
        for number in range(CHANGES):
            time.sleep(random.uniform(*PAUSE_S))
            rate = 10_000_000 + 1000 * (number + 1)
            asked[rate] = request({"spec": {"ingress": {"rate": {"bits": rate}}}})
    wait_ready(bench.here, "web", CHANGED_PODS)
    done: dict[int, list[float]] = {rate: [] for rate in asked}
    for line in (line for node in nodes for line in agent_log(bench.release, node)):
        if line.event == "limit set" and line.time_s > begin:
            done.get(line.details["bits_per_s"], []).append(line.time_s)
    bench.here.run("delete", "tbp,pod", "--all", timeout_s=120)
    whole = {rate: times for rate, times in done.items() if len(times) == CHANGED_PODS}
    if len(whole) < CHANGES:
        print(f"DISTURBED: {CHANGES - len(whole)} rates were overtaken by the next one")
    first = [1000 * (min(times) - asked[rate]) for rate, times in whole.items()]
    return first, [1000 * (max(times) - asked[rate]) for rate, times in whole.items()]


@contextlib.contextmanager
def admin_connection(cluster: Cluster, path: str) -> Iterator[Any]:
    """Provide an open connection: a function that patches the policy and returns the time of the request."""
    config = json.loads(cluster.kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    connection = http.client.HTTPSConnection(server.hostname or "", server.port, context=_context(config))

    def request(change: Mapping[str, Any]) -> float:
        body = json.dumps(change)
        before = time.time()
        connection.request("PATCH", path, body, {"Content-Type": "application/merge-patch+json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"PATCH {path}: {answer.status} {text.decode()}")
        return before

    with contextlib.closing(connection):
        yield request


def idle_pod(name: str, node: str, app: str) -> dict[str, Any]:
    """Return a pod that uses almost nothing."""
    document = pod(name, node, {"app": app})
    container = document["spec"]["containers"][0]
    document["spec"]["containers"] = [{"name": container["name"], "image": PAUSE_TAG}]
    return document


def report_changes(bench: Bench) -> bool:
    """Print the times of changes. Returns whether every target is met."""
    met = True
    for nodes in (bench.nodes[:1], bench.nodes[:2]):
        first, last = changes(bench, nodes)
        met &= print_table(
            f"A new rate for {CHANGED_PODS} pods, nodes: {len(nodes)}; {CHANGES} times",
            (
                Figure("from the request to the first pod", first, "ms"),
                below("from the request to the last pod", last, MEDIAN_MS, "ms"),
                below("  its 99th percentile", [percentile_99(last)], P99_MS, "ms"),
            ),
        )
    return met


def report_footprint(bench: Bench) -> bool:
    """Measure a node with the default maximum of pods. Returns whether every target is met."""
    node = bench.nodes[0]
    there = bench.here.items("pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}")
    count = NODE_PODS - len(there)
    bench.here.apply(
        policy("all", None, ingress={"rate": {"bits": "10M"}, "exceedAction": "Drop"}),
        *(idle_pod(f"full-{number}", node, "full") for number in range(count)),
    )
    bench.here.wait("condition=Ready", "pod", "--all", timeout_s=300)
    wait_ready(bench.here, "all", count)
    time.sleep(SETTLE_S)
    before, begin = processor_s(bench.shell, node), time.monotonic()
    time.sleep(IDLE_S)
    taken, seconds = processor_s(bench.shell, node) - before, time.monotonic() - begin
    memory = resident_bytes(bench.shell, node) / 2**20
    bench.here.run("delete", "tbp,pod", "--all", timeout_s=300)
    return print_table(
        f"The agent of a node with {NODE_PODS} pods, {count} of them limited, while nothing happens",
        (
            below("memory", [memory], MEMORY_MIB, "MiB"),
            below("time on a processor", [100 * taken / seconds], PROCESSOR_PERCENT, "%"),
        ),
    )


def main() -> int:
    """Run the benchmarks. Returns the exit status."""
    was_up = find() is not None
    made = up(lambda text: print(text, file=sys.stderr), images=[operator_image()])
    release = Release(made.kubectl)
    release.install()
    nodes = [node.name for node in made.nodes if node.kind == "namespace"]
    print(f"{datetime.now(UTC):%Y-%m-%d}; {machine()}")
    with node_shells(made.kubectl) as shell, made.kubectl.fresh_namespace(NAMESPACE) as here:
        bench = Bench(made, release, shell, here, nodes)
        met = [report_arrival(bench), report_changes(bench), report_footprint(bench)]
    if not was_up:
        down()
    print("\nevery target is met" if all(met) else "\na target was missed")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
