"""A fleet of agents against a real API server: what nodes and pods by the hundred cost it, and them.

Run as ``make bench-fleet``. etcd, API server, controller and agents are real, each agent with connections and
a token of its own; nodes and pods are objects and nothing else, and the agents' kernels are in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import server_metrics
from arrival import percentile_99
from figures import Figure, print_table
from fleet_agents import Agent, Server
from fleet_objects import APPS, NAMESPACE, Admin, create_fleet, node_name, pod_name
from run import machine
from server_metrics import Metrics

from cluster import pki
from cluster.cluster import Cluster
from cluster.kubectl import Kubectl
from cluster.layout import layout
from cluster.lifecycle import down, up_without_nodes
from cluster.versions import versions
from tests.e2e import release
from tests.e2e.release import Release, policy
from tokenbucket.agent.options import AgentOptions

STARTS_PER_S = 8.0
"""As many agents as two CPUs can start, which elsewhere have a node each."""
QUIET_S = 6.0
"""After each change, so that what follows from it is counted as its own."""
TIMEOUT_S = 300.0
AGENT_LABELS = {
    "app.kubernetes.io/name": "tokenbucket",
    "app.kubernetes.io/instance": release.NAME,
    "app.kubernetes.io/component": "agent",
}
_POLICIES = f"/apis/tokenbucket.dev/v1alpha1/namespaces/{NAMESPACE}/tokenbucketpolicies"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CLONE_NEWNET = 0x40000000
_PARTS = ("kube-apiserver", "etcd", "controller", "agents")


@dataclass(frozen=True)
class Moment:
    """What everything has taken up to now."""

    at_s: float
    metrics: Metrics
    processor_s: dict[str, float]
    own: Counter[tuple[str, str]]
    """Requests of the benchmark itself, by verb and resource."""


@dataclass
class Window:
    """What happened between two moments."""

    seconds: float
    metrics: Metrics
    processor_s: dict[str, float]
    own: Counter[tuple[str, str]]

    def requests(self) -> dict[tuple[str, str], float]:
        """By verb and resource, those of the benchmark left out. Watches count when they end."""
        made = self.metrics.by("apiserver_request_total", ("verb", "resource"))
        left = {(verb, what): count - self.own[verb, what] for (verb, what), count in made.items()}
        return {key: count for key, count in left.items() if count > 0 and (_ours(key[1]) or not key[1])}

    def events(self) -> dict[str, float]:
        """Sent to watches, by resource."""
        sent = self.metrics.by("apiserver_watch_events_total", ("resource",))
        return {resource: count for (resource,), count in sent.items() if _ours(resource)}

    def event_bytes(self) -> float:
        return sum(
            self.metrics.sum("apiserver_watch_events_sizes_sum", resource=each) for each in self.events()
        )

    def response_bytes(self) -> float:
        """Of answers, but not to watches. Those to the benchmark itself are among them."""
        sizes = self.metrics.by("apiserver_response_sizes_sum", ("verb", "resource"))
        return sum(size for (verb, what), size in sizes.items() if verb != "WATCH" and _ours(what))


def _ours(resource: str) -> bool:
    return resource in {"tokenbucketpolicies", "tokenbucketnodes", "pods", "nodes", "configmaps"}


@dataclass
class Fleet:
    """Everything that runs."""

    options: argparse.Namespace
    cluster: Cluster
    admin: Admin
    controller: subprocess.Popen[bytes]
    agents: list[Agent] = field(default_factory=list)

    @property
    def nodes(self) -> int:
        return self.options.nodes

    def now(self) -> Moment:
        metrics = self._metrics()
        return Moment(time.monotonic(), metrics, self._processor_s(), self.admin.made.copy())

    def since(self, earlier: Moment) -> Window:
        # Before the metrics are asked for: to give them takes the API server as long as many a request.
        processor_s, at_s = self._processor_s(), time.monotonic()
        metrics = self._metrics() - earlier.metrics
        taken = {part: processor_s[part] - earlier.processor_s[part] for part in _PARTS}
        return Window(at_s - earlier.at_s, metrics, taken, self.admin.made - earlier.own)

    def _metrics(self) -> Metrics:
        self.admin.made["GET", ""] += 1
        return server_metrics.parse(self.admin.text("GET", "/metrics"))

    def _processor_s(self) -> dict[str, float]:
        root = self.cluster.root
        parts = {name: [root.component(name).pid] for name in ("kube-apiserver", "etcd")}
        parts |= {"controller": [self.controller.pid], "agents": [each.pid for each in self.agents]}
        return {part: sum(map(_processor_s, pids)) for part, pids in parts.items()}

    def ask(self, *question: object) -> list[Any]:
        """Asks all agents at once."""
        for agent in self.agents:
            agent.ask(*question)
        return [agent.answer() for agent in self.agents]

    def written(self, name: str, generation: int) -> list[float]:
        """When each agent wrote this generation of a policy to its last slot; of those that have."""
        return [each for each in self.ask("written", name, generation) if each is not None]

    def active(self, name: str, generation: int) -> bool:
        """Whether the policy's status says so."""
        document = self.get("tokenbucketpolicies", f"{_POLICIES}/{name}")
        conditions = (document.get("status") or {}).get("conditions") or ()
        return any(
            (each["type"], each["status"], each["observedGeneration"]) == ("Ready", "True", generation)
            for each in conditions
        )

    def get(self, resource: str, path: str) -> Any:
        self.admin.made["GET", resource] += 1
        return self.admin.request("GET", path)

    def merge(self, resource: str, path: str, patch: object) -> Any:
        self.admin.made["PATCH", resource] += 1
        return self.admin.merge(path, patch)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _resident_mib(pid: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def _own_mib(pid: int) -> float:
    """What a process does not share with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.split()[0]) for name, size in (line.split(":", 1) for line in lines)}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024


def wait_for(condition: Callable[[], bool], what: str, step_s: float = 0.2) -> float:
    """Polls. Returns when it held, of the monotonic clock. Raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {TIMEOUT_S:.0f} s for {what}")
        time.sleep(step_s)
    return time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _BEGIN:6.1f} s  {text}", file=sys.stderr, flush=True)


_BEGIN = time.monotonic()


# --- what is measured


def start(fleet: Fleet, begin: Callable[[int], Agent]) -> list[Figure]:
    """All agents start, with the pods and the policies there."""
    before, nodes = fleet.now(), fleet.nodes
    for node in range(nodes):
        fleet.agents.append(begin(node))
        time.sleep(max(0.0, before.at_s + node / STARTS_PER_S - time.monotonic()))
    reported = wait_for(lambda: sum(fleet.ask("reported")) == nodes, "all agents' first report", 0.5)
    wait_for(lambda: all(fleet.active(f"app-{app}", 1) for app in range(APPS)), "the policies' status", 0.5)
    time.sleep(QUIET_S)
    window = fleet.since(before)
    lists = window.metrics.sum("apiserver_cache_list_total", resource="pods")
    fetched = window.metrics.sum("apiserver_cache_list_fetched_objects_total", resource="pods")
    watches = fleet.now().metrics.by("apiserver_longrunning_requests", ("verb", "resource"))
    own = sum(count for (verb, what), count in watches.items() if verb == "WATCH" and _ours(what))
    return [
        Figure("until the last agent's first report", [reported - before.at_s], "s"),
        *request_figures([window], nodes, "an agent"),
        Figure("watches open, an agent", [own / nodes], ""),
        Figure("lists of pods from the API server's cache", [lists], ""),
        Figure("  objects that it looked at, a list", [fetched / max(lists, 1)], ""),
        *(
            Figure(f"  lists that went to etcd: {kind}", [count], "")
            for (operation, kind), count in window.metrics.by(
                "etcd_request_duration_seconds_count", ("operation", "resource")
            ).items()
            if operation.startswith("list")
        ),
        *bytes_figures([window], nodes, "an agent"),
        *processor_figures([window], nodes),
    ]


def request_figures(windows: Sequence[Window], per: float, what: str) -> list[Figure]:
    """Requests by verb and resource."""
    kinds = sorted({kind for window in windows for kind in window.requests()})
    return [
        Figure(
            f"{verb} {resource or 'of the API itself'}, {what}",
            [each.requests().get((verb, resource), 0) / per for each in windows],
            "",
        )
        for verb, resource in kinds
    ]


def bytes_figures(windows: Sequence[Window], per: float, what: str) -> list[Figure]:
    return [
        Figure(
            f"events sent to watches, {what}", [sum(each.events().values()) / per for each in windows], ""
        ),
        Figure(
            "  of these", [sum(each.event_bytes() for each in windows) / 1024 / per / len(windows)], "KiB"
        ),
        Figure(
            f"answers to requests, {what}", [each.response_bytes() / 1024 / per for each in windows], "KiB"
        ),
    ]


def processor_figures(windows: Sequence[Window], nodes: int) -> list[Figure]:
    """CPU time of each part."""
    return [
        Figure(
            "processor, an agent" if nodes > 1 else "processor, agents",
            [1000 * each.processor_s["agents"] / nodes for each in windows],
            "ms",
        ),
        *(
            Figure(f"processor, {part}", [1000 * each.processor_s[part] for each in windows], "ms")
            for part in _PARTS[:3]
        ),
    ]


def policy_changes(fleet: Fleet) -> list[Figure]:
    """A new rate for one of the applications, which has pods on every node."""
    windows: list[Window] = []
    medians, lasts, statuses = [], [], []
    for change in range(fleet.options.changes):
        name = f"app-{change % APPS}"
        before, begin = fleet.now(), time.monotonic()
        changed = fleet.merge(
            "tokenbucketpolicies",
            f"{_POLICIES}/{name}",
            {"spec": {"ingress": {"rate": {"bits": 20_000_000 + change * 1000}}}},
        )
        generation = changed["metadata"]["generation"]
        statuses.append(wait_for(lambda n=name, g=generation: fleet.active(n, g), "status") - begin)
        wait_for(lambda n=name, g=generation: len(fleet.written(n, g)) == fleet.nodes, "all slots")
        time.sleep(QUIET_S)
        windows.append(fleet.since(before))
        times = [1000 * (each - begin) for each in fleet.written(name, generation)]
        medians.append(statistics.median(times))
        lasts.append(max(times))
    return [
        Figure("until half of the agents wrote their slots", medians, "ms"),
        Figure("until the last one did", lasts, "ms"),
        Figure("  its 99th percentile", [percentile_99(lasts)], "ms"),
        Figure("until the policy's status shows it", statuses, "s"),
        *request_figures(windows, 1, "a change"),
        *bytes_figures(windows, 1, "a change"),
        *processor_figures(windows, fleet.nodes),
    ]


def pod_changes(fleet: Fleet) -> list[Figure]:
    """One pod gets the label of another application, and so another policy."""
    windows = []
    for change in range(fleet.options.changes):
        node = random.randrange(fleet.nodes)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod_name(node, change % fleet.options.pods_per_node)}"
        before = fleet.now()
        app = (change % fleet.options.pods_per_node + 1) % APPS
        fleet.merge("pods", path, {"metadata": {"labels": {"app": f"app-{app}"}}})
        time.sleep(QUIET_S)
        windows.append(fleet.since(before))
    return [
        *request_figures(windows, 1, "a change"),
        *(
            Figure(f"events of {resource}", [each.events().get(resource, 0) for each in windows], "")
            for resource in sorted({resource for each in windows for resource in each.events()})
        ),
        *bytes_figures(windows, 1, "a change"),
        *(figure for figure in processor_figures(windows, 1)),
    ]


def relists(fleet: Fleet) -> list[Figure]:
    """Each agent lists all its objects again, as it does every five minutes; here one after the other."""
    before = fleet.now()
    for agent in fleet.agents:
        agent.ask("relist")
        agent.answer()
    window = fleet.since(before)
    return [
        *request_figures([window], fleet.nodes, "an agent"),
        *bytes_figures([window], fleet.nodes, "an agent"),
        *processor_figures([window], fleet.nodes),
        Figure("  API server, an agent", [1000 * window.processor_s["kube-apiserver"] / fleet.nodes], "ms"),
    ]


def rest(fleet: Fleet) -> list[Figure]:
    """Nothing happens."""
    before = fleet.now()
    time.sleep(fleet.options.rest)
    window = fleet.since(before)
    minutes = window.seconds / 60
    percent = {part: 100 * taken / window.seconds for part, taken in window.processor_s.items()}
    return [
        *request_figures([window], fleet.nodes * minutes, "an agent and minute"),
        *bytes_figures([window], fleet.nodes * minutes, "an agent and minute"),
        Figure("processor, an agent", [percent["agents"] / fleet.nodes], "%"),
        *(Figure(f"processor, {part}", [percent[part]], "%") for part in _PARTS[:3]),
    ]


def footprint(fleet: Fleet) -> list[Figure]:
    metrics = fleet.now().metrics
    agents = [_own_mib(each.pid) for each in fleet.agents]
    etcd = fleet.cluster.root.component("etcd").pid
    return [
        Figure("an agent, without what all share", agents, "MiB"),
        Figure("controller", [_resident_mib(fleet.controller.pid)], "MiB"),
        Figure("kube-apiserver", [metrics.sum("process_resident_memory_bytes") / 2**20], "MiB"),
        Figure("etcd", [_resident_mib(etcd)], "MiB"),
        Figure(
            "requests that the API server rejected", [metrics.sum("apiserver_request_total", code="429")], ""
        ),
        Figure(
            "watches that it ended, being too slow", [metrics.sum("apiserver_terminated_watchers_total")], ""
        ),
    ]


def warnings(logs: Path) -> Counter[str]:
    """What agents and controller had to complain of, by event."""
    found: Counter[str] = Counter()
    for log in logs.glob("*.log"):
        for line in log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"level": "error", "event": line[:100]}
            if entry["level"] != "info":
                found[f"{log.stem.partition('-')[0]}: {entry['event'].partition(' GET ')[0]}"] += 1
    return found


# --- what it is measured on


@contextlib.contextmanager
def fleet_of(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Fleet, Callable[[int], Agent]]]:
    """A control plane with the objects and the controller, and what starts an agent; gone at the end."""
    os.environ.setdefault("TOKENBUCKET_E2E_NAME", "fleet")
    place = layout()
    with ExitStack() as stack:
        stack.callback(down, place)
        cluster = up_without_nodes(place, say)
        _enter_network(cluster)
        # From inside: the way from outside leads through a process that would take part in what is measured.
        inside = folder / "admin.conf"
        inside.write_text(pki.kubeconfig(cluster.pki, pki.ADMIN))
        config = json.loads(inside.read_text())
        kubectl = Kubectl(inside, cluster.kubectl.program)
        _install(kubectl, options)
        say(
            f"API server and chart are there; making {options.nodes} nodes, {options.pods_per_node} pods each"
        )
        account = "tokenbucket-agent"
        tokens = create_fleet(
            config, options.nodes, options.pods_per_node, (release.NAMESPACE, account, AGENT_LABELS)
        )
        say("nodes and pods are there")
        controller = _controller(kubectl, config, folder)
        stack.callback(_end, controller)
        fleet = Fleet(options, cluster, Admin(config), controller)
        stack.callback(lambda: [each.kill() for each in fleet.agents])
        there = config["clusters"][0]["cluster"]
        server = Server(there["server"], there["certificate-authority-data"])

        def begin(number: int) -> Agent:
            node = node_name(number)
            return Agent(agent_options(options, node), server, tokens[node], folder / f"agent-{number}.log")

        yield fleet, begin


def agent_options(options: argparse.Namespace, node: str) -> AgentOptions:
    """As the chart gives them."""
    return AgentOptions(
        node=node,
        namespace=release.NAMESPACE,
        pod=f"agent-{node}",
        config_map=release.NAME,
        protected=frozenset({"kube-system", release.NAMESPACE}),
        report_spread_s=options.report_spread,
        probe_port=0,
    )


def _enter_network(cluster: Cluster) -> None:
    """This process, and what it starts, are where the API server is."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{cluster.root.init.pid}/ns/net").open() as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _install(kubectl: Kubectl, options: argparse.Namespace) -> None:
    """The chart, whose DaemonSet and Deployment no controller reads here, and the policies."""
    chart = Release(kubectl)
    sets = [f"--set={each}" for each in options.set]
    chart._helm("upgrade", "--install", release.NAME, str(release.CHART), "--create-namespace", *sets)
    here = Kubectl(kubectl.kubeconfig, kubectl.program, NAMESPACE)
    kubectl.run("create", "namespace", NAMESPACE)
    here.run("create", "serviceaccount", "default")
    limit = {"rate": {"bits": "20M"}, "exceedAction": "Drop"}
    here.apply(*(policy(f"app-{app}", f"app-{app}", ingress=limit, egress=limit) for app in range(APPS)))


def _controller(kubectl: Kubectl, config: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    here = Kubectl(kubectl.kubeconfig, kubectl.program, release.NAMESPACE)
    token = here.run("create", "token", "tokenbucket-controller", "--duration=2h").strip()
    kubeconfig = folder / "controller.conf"
    kubeconfig.write_text(json.dumps({**config, "users": [{"name": "admin", "user": {"token": token}}]}))
    argv = [sys.executable, "-m", "tokenbucket", "controller", "--namespace", release.NAMESPACE]
    argv += ["--log-format", "json", "--probe-address", "127.0.0.1:10474"]
    with (folder / "controller.log").open("wb") as log:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument(
        "--pods-per-node", type=int, default=30, help=f"at least {APPS}, one of each application"
    )
    parser.add_argument("--changes", type=int, default=6, help="how many of each kind, at least 2")
    parser.add_argument("--rest", type=float, default=90.0, help="seconds in which nothing happens")
    parser.add_argument("--report-spread", type=float, default=0.0, help="of the agents; 0 derives it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the chart"
    )
    options = parser.parse_args()
    if options.changes < 2 or options.pods_per_node < APPS:
        parser.error(f"--changes must be at least 2, and --pods-per-node at least {APPS}")
    return options


def main() -> int:
    """Runs it. Returns the exit status."""
    options = arguments()
    if os.geteuid() != 0:
        print("make bench-fleet: needs root, for the namespaces of the cluster", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; Kubernetes {versions().kubernetes}")
    with (
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
        fleet_of(options, Path(folder)) as (fleet, begin),
    ):
        size = f"{options.nodes} agents, {options.nodes * options.pods_per_node} pods, {APPS} policies"
        parts: list[tuple[str, Callable[[], list[Figure]]]] = [
            (f"All agents start: {size}", lambda: start(fleet, begin)),
            ("A new rate in one policy, enforced on every node", lambda: policy_changes(fleet)),
            ("A pod gets another label, and so another policy", lambda: pod_changes(fleet)),
            ("Every agent lists everything again", lambda: relists(fleet)),
            (f"At rest, {options.rest:.0f} s", lambda: rest(fleet)),
            ("Memory after all that", lambda: footprint(fleet)),
        ]
        for title, measure in parts:
            say(title)
            print_table(title, measure())
            sys.stdout.flush()
        for text, count in warnings(Path(folder)).most_common():
            print(f"  {count:6} x {text}")
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
