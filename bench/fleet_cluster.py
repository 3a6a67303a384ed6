"""The control plane, the objects, the controller and the agents of ``make bench-fleet``."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import server_metrics
from fleet_agents import Agent, Server
from fleet_objects import NAMESPACE, Admin, create_agent, create_fleet, node_name
from fleet_window import PARTS, Moment, Window, processor_s
from server_metrics import Metrics

from cluster import control_plane, pki
from cluster.cluster import CONTROL_PLANE, Cluster
from cluster.kubectl import Kubectl
from cluster.layout import layout
from cluster.lifecycle import down, up_without_nodes
from tests.e2e import release
from tests.e2e.release import Release, policy
from tokenbucket.agent.options import AgentOptions

TIMEOUT_S = 900.0
AGENT_LABELS = {
    "app.kubernetes.io/name": "tokenbucket",
    "app.kubernetes.io/instance": release.NAME,
    "app.kubernetes.io/component": "agent",
}
AGENT = (release.NAMESPACE, "tokenbucket-agent", AGENT_LABELS)
"""Namespace, service account and labels of the agents' pods."""
POLICIES = f"/apis/tokenbucket.dev/v1alpha1/namespaces/{NAMESPACE}/tokenbucketpolicies"
_CLONE_NEWNET = 0x40000000
_BEGIN = time.monotonic()


@dataclass
class Fleet:
    """Everything that runs."""

    options: argparse.Namespace
    cluster: Cluster
    admin: Admin
    controller: subprocess.Popen[bytes]
    begin: Callable[[int], Agent]
    """Starts the agent of a node."""
    runs: Path
    """Where the controller writes its runs."""
    agents: list[Agent] = field(default_factory=list)

    @property
    def nodes(self) -> int:
        return self.options.nodes

    @property
    def apps(self) -> int:
        """Number of applications, each with pods on each node."""
        return apps_of(self.options)

    def now(self) -> Moment:
        metrics = self._metrics()
        return Moment(time.monotonic(), metrics, self._processor_s(), self.admin.made.copy())

    def since(self, earlier: Moment) -> Window:
        # Before the metrics are asked for: to give them takes the API server as long as many a request.
        processor_s, at_s = self._processor_s(), time.monotonic()
        metrics = self._metrics() - earlier.metrics
        taken = {part: processor_s[part] - earlier.processor_s[part] for part in PARTS}
        return Window(at_s - earlier.at_s, metrics, taken, self.admin.made - earlier.own)

    def _metrics(self) -> Metrics:
        self.admin.made["GET", ""] += 1
        return server_metrics.parse(self.admin.text("GET", "/metrics"))

    def _processor_s(self) -> dict[str, float]:
        root = self.cluster.root
        parts = {name: [root.component(name).pid] for name in ("kube-apiserver", "etcd")}
        parts |= {"controller": [self.controller.pid], "agents": [each.pid for each in self.agents]}
        return {part: sum(map(processor_s, pids)) for part, pids in parts.items()}

    def ask(self, *question: object) -> list[Any]:
        """Ask all agents at once."""
        for agent in self.agents:
            agent.ask(*question)
        return [agent.answer() for agent in self.agents]

    def written(self, name: str, generation: int) -> list[float]:
        """Return when each agent wrote this generation of a policy to its last slot, if it has."""
        return [each for each in self.ask("written", name, generation) if each is not None]

    def active(self, name: str, generation: int) -> bool:
        """Return whether the status of the policy shows it."""
        document = self.get("tokenbucketpolicies", f"{POLICIES}/{name}")
        conditions = (document.get("status") or {}).get("conditions") or ()
        return any(
            (each["type"], each["status"], each["observedGeneration"]) == ("Ready", "True", generation)
            for each in conditions
        )

    def statuses(self) -> dict[str, dict[str, Any]]:
        """Return the condition Ready of each policy."""
        self.admin.made["LIST", "tokenbucketpolicies"] += 1
        return ready_conditions(self.admin)

    def all_ready(self) -> bool:
        """Return whether all policies are."""
        return all(each["status"] == "True" for each in self.statuses().values())

    def reports_since(self, at_s: float) -> list[list[float]]:
        """Return the times of the reports of each agent."""
        return self.ask("reports", at_s)

    def runs_since(self, at_s: float) -> list[float]:
        """Return the CPU times of the controller's runs in milliseconds."""
        return runs_since(self.runs, at_s)

    def start_api_server(self) -> None:
        """Start it again. The wait of the cluster would use the outer network."""
        here = self.cluster
        data = here.place.root / CONTROL_PLANE
        control_plane.start_api_server(here.root, here.programs, here.pki, data)
        wait_for(self.admin.answered, "the API server")

    def get(self, resource: str, path: str) -> Any:
        self.admin.made["GET", resource] += 1
        return self.admin.request("GET", path)

    def merge(self, resource: str, path: str, patch: object) -> Any:
        self.admin.made["PATCH", resource] += 1
        return self.admin.merge(path, patch)


def ready_conditions(admin: Admin) -> dict[str, dict[str, Any]]:
    """Return the condition Ready of each policy; an empty condition of one that has changed since."""
    return {each["metadata"]["name"]: _ready(each) for each in admin.request("GET", POLICIES)["items"]}


def _ready(policy: dict[str, Any]) -> dict[str, Any]:
    conditions = {each["type"]: each for each in policy["status"]["conditions"]}
    current = conditions["Ready"].get("observedGeneration") == policy["metadata"]["generation"]
    return conditions["Ready"] if current else {"status": "", "lastTransitionTime": ""}


def apps_of(options: argparse.Namespace) -> int:
    """Return the number of applications. Policies beyond it select the same pods again."""
    return min(options.policies, options.pods_per_node)


def runs_since(runs: Path, at_s: float) -> list[float]:
    """Return the CPU times in milliseconds of the runs that ended after a monotonic time."""
    lines = (line.split() for line in runs.read_text().splitlines())
    return [float(took_ms) for ended_s, took_ms in lines if float(ended_s) >= at_s]


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


@contextlib.contextmanager
def fleet_of(options: argparse.Namespace, folder: Path) -> Iterator[Fleet]:
    """Provide a control plane with the objects and the controller, without agents."""
    with server_with_chart(options, folder) as (cluster, kubectl, config):
        say(f"making {options.nodes} nodes, {options.pods_per_node} pods each")
        create_fleet(config, options.nodes, options.pods_per_node, apps_of(options))
        say("nodes and pods are there")
        there = config["clusters"][0]["cluster"]
        server = Server(there["server"], there["certificate-authority-data"])
        admin, tokens = Admin(config), dict[int, str]()

        def begin(number: int) -> Agent:
            if number not in tokens:
                tokens[number] = create_agent(admin, number, AGENT)
            settings = agent_options(options, node_name(number))
            return Agent(settings, server, tokens[number], folder / f"agent-{number}.log")

        with controller(kubectl, config, folder) as process:
            fleet = Fleet(options, cluster, admin, process, begin, folder / "runs")
            try:
                yield fleet
            finally:
                for each in fleet.agents:
                    each.kill()


@contextlib.contextmanager
def server_with_chart(
    options: argparse.Namespace, folder: Path
) -> Iterator[tuple[Cluster, Kubectl, dict[str, Any]]]:
    """Provide an API server with the chart and the policies, and the configuration of a client."""
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
        say("API server and chart are there")
        yield cluster, kubectl, config


@contextlib.contextmanager
def controller(kubectl: Kubectl, config: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Provide a controller, for the block."""
    process = _controller(kubectl, config, folder)
    try:
        yield process
    finally:
        _end(process)


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
        cni_results=Path("/nonexistent"),  # the kernel gives one user 128 watches of folders
    )


def _enter_network(cluster: Cluster) -> None:
    """This process, and what it starts, are where the API server is."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{cluster.root.init.pid}/ns/net").open() as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _install(kubectl: Kubectl, options: argparse.Namespace) -> None:
    """Install the chart, whose DaemonSet and Deployment no controller reads here, and the policies."""
    chart = Release(kubectl)
    sets = [f"--set={each}" for each in options.set]
    chart._helm("upgrade", "--install", release.NAME, str(release.CHART), "--create-namespace", *sets)
    here = Kubectl(kubectl.kubeconfig, kubectl.program, NAMESPACE)
    kubectl.run("create", "namespace", NAMESPACE)
    here.run("create", "serviceaccount", "default")
    limit = {"rate": {"bits": "20M"}, "exceedAction": "Drop"}
    apps = apps_of(options)
    policies = (
        policy(f"app-{number}", f"app-{number % apps}", ingress=limit, egress=limit)
        for number in range(options.policies)
    )
    here.apply(*policies)


def _controller(kubectl: Kubectl, config: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    here = Kubectl(kubectl.kubeconfig, kubectl.program, release.NAMESPACE)
    token = here.run("create", "token", "tokenbucket-controller", "--duration=2h").strip()
    kubeconfig = folder / "controller.conf"
    kubeconfig.write_text(json.dumps({**config, "users": [{"name": "admin", "user": {"token": token}}]}))
    argv = [sys.executable, "-m", "fleet_controller", "controller", "--namespace", release.NAMESPACE]
    argv += ["--log-format", "json", "--probe-address", "127.0.0.1:10474"]
    with (folder / "controller.log").open("ab") as log:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "FLEET_RUNS": str(folder / "runs")}
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
