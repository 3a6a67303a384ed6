"""Commands on nodes, through a privileged pod on each: the same on every kind of node and of cluster."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .client import client_image
from .errors import ClusterError
from .kubectl import Kubectl

_NAME = "node-shell"
_ENTER = ("nsenter", "--target", "1", "--mount", "--net", "--uts", "--ipc", "--pid", "--")


@dataclass(frozen=True, slots=True)
class NodeShell:
    """Runs commands in the namespaces of a node's first process."""

    kubectl: Kubectl

    def run(self, node: str, *argv: str, timeout_s: float = 60.0) -> str:
        """Return what the command prints on the node. Raises ClusterError when it fails."""
        return self.kubectl.exec(self._pod(node), *_ENTER, *argv, timeout_s=timeout_s)

    def _pod(self, node: str) -> str:
        # Looked up each time: a node that joins again has another one.
        pods = self.kubectl.items("pods", f"--field-selector=spec.nodeName={node}")
        here = [pod["metadata"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not here:
            raise ClusterError(_NAME, f"no pod on {node}")
        return str(here[0]["name"])


@contextlib.contextmanager
def node_shells(kubectl: Kubectl) -> Iterator[NodeShell]:
    """Provide a shell on every node, for the block."""
    # A name of its own: another block may have shells, too.
    with kubectl.fresh_namespace(f"{_NAME}-{secrets.token_hex(4)}") as here:
        here.apply(_daemon_set())
        here.rolled_out(f"daemonset/{_NAME}", timeout_s=120)
        yield NodeShell(here)


def _daemon_set() -> dict[str, Any]:
    container = {
        "name": "main",
        **client_image(),
        "command": ["sleep", "infinity"],
        "securityContext": {"privileged": True},
    }
    pod = {
        "hostPID": True,
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "tolerations": [{"operator": "Exists"}],
    }
    labels = {"app": _NAME}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": _NAME},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
