"""Cilium on the nodes of a cluster whose CNI plugin it is: installed, and run in one mode after another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import cgroups, pki
from .box import Box
from .cilium_mode import Mode
from .cilium_programs import cilium_programs
from .cluster import Cluster
from .errors import ClusterError
from .shape import Node
from .waiting import wait_for

AGENT = "cilium-agent"
_SETUP = Path(__file__).parent / "cilium_setup.sh"
_NAMESPACE = "kube-system"
_READY_TIMEOUT_S = 120.0
_REGENERATED_TIMEOUT_S = 300.0


def install(cluster: Cluster) -> None:
    """Make the definitions and the nodes' ranges of addresses, and prepare the nodes' file systems."""
    programs = cilium_programs()
    manifests = [f"--filename={path}" for path in programs.crds]
    cluster.kubectl.run("apply", "--server-side", *manifests)
    for node in cluster.nodes:
        # The controller manager of the cluster allocates none.
        ranges = {"podCIDR": node.pods_ipv4, "podCIDRs": [node.pods_ipv4, node.pods_ipv6]}
        cluster.kubectl.run("patch", "node", node.name, f"--patch={json.dumps({'spec': ranges})}")
        group = cgroups.unified(f"{cluster.place.cgroup}/{node.name}")
        cluster.box(node.name).run([_SETUP, programs.sources, group], part=f"{node.name} Cilium")


def run_agents(cluster: Cluster, mode: Mode) -> None:
    """Start the agent of each node in ``mode``, in place of one that runs, and wait until it has loaded its
    programs for the node and for each pod.

    Raises ClusterError with the end of the agent's log.
    """
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: _run_agent(cluster, node, mode), cluster.nodes))


def stop_agent(box: Box) -> None:
    """Kill the agent of a node. Its programs stay attached."""
    if box.components.exit_status(AGENT) is None and box.components.log(AGENT).exists():
        box.stop(AGENT)


def endpoints(box: Box) -> list[Mapping[str, Any]]:
    """Return the endpoints of a node, as its agent reports them."""
    return list(json.loads(ask(box, "endpoint", "list", "--output=json")))


def ask(box: Box, *words: str) -> str:
    """Return the answer of the node's agent to ``cilium-dbg WORDS``. Raises ClusterError."""
    return box.run([cilium_programs().debug, *words], part=f"{box.name}/cilium-dbg", timeout_s=60)


def _run_agent(cluster: Cluster, node: Node, mode: Mode) -> None:
    box = cluster.box(node.name)
    stop_agent(box)
    config = cluster.pki.kubeconfig(pki.ADMIN)
    environment = {
        "PATH": f"/var/lib/cilium/bin:{cluster.programs.search_path}",
        "K8S_NODE_NAME": node.name,
        "CILIUM_K8S_NAMESPACE": _NAMESPACE,
    }
    words = [f"{name}={value}" for name, value in environment.items()]
    argv: list[str | Path] = [
        "env",
        *words,
        cilium_programs().agent,
        f"--k8s-kubeconfig-path={config}",
        *mode.options(),
    ]
    box.start(AGENT, argv)
    wait_for(
        lambda: _is_ready(box),
        what="it answers",
        among=box.components,
        component=AGENT,
        timeout_s=_READY_TIMEOUT_S,
    )
    wait_for(
        lambda: all(each["status"]["state"] == "ready" for each in endpoints(box)),
        what="it has loaded the programs of all endpoints",
        among=box.components,
        component=AGENT,
        timeout_s=_REGENERATED_TIMEOUT_S,
        step_s=0.5,
    )


def _is_ready(box: Box) -> bool:
    try:
        ask(box, "status", "--brief")
    except ClusterError:
        return False
    return True
