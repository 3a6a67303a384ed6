"""The objects of a fleet that is not there: nodes, their pods, and the agents' pods with a token for each."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from cluster.api import _context

NAMESPACE = "fleet"
_WORKERS = 4
_BATCH = 20
_MERGE = "application/merge-patch+json"
_STAMP = "2026-01-01T00:00:00Z"


class Admin:
    """Requests as the administrator, over one connection. They are counted, to be told from the fleet's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._connection = http.client.HTTPSConnection(
            server.hostname or "", server.port, timeout=120, context=_context(dict(config))
        )
        self.made: Counter[tuple[str, str]] = Counter()

    def text(self, method: str, path: str, body: object = None, kind: str = "application/json") -> str:
        """Return the text of an answer. Raises RuntimeError if the server rejects the request."""
        data = json.dumps(body) if body is not None else None
        try:
            self._connection.request(method, path, data, {"Content-Type": kind})
            answer = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # nothing was asked for so long that the server has left
            self._connection.close()
            self._connection.request(method, path, data, {"Content-Type": kind})
            answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        return text

    def answered(self) -> bool:
        """Return whether the server is ready, over a new connection."""
        self._connection.close()
        try:
            return self.text("GET", "/readyz") == "ok"
        except (OSError, http.client.HTTPException, RuntimeError):
            return False

    def request(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """Return the same for documents."""
        return json.loads(self.text(method, path, body, kind))

    def merge(self, path: str, patch: object) -> Any:
        """Return a JSON merge patch."""
        return self.request("PATCH", path, patch, _MERGE)


def node_name(number: int) -> str:
    return f"node-{number:05}"


def agent_name(node: int) -> str:
    return f"agent-{node_name(node)}"


def pod_name(node: int, number: int) -> str:
    return f"{node_name(node)}-{number:03}"


def create_fleet(config: Mapping[str, Any], nodes: int, pods_per_node: int, apps: int) -> None:
    """Make nodes, and pods of ``apps`` applications on each. Several processes share the work."""
    batches = [range(first, min(first + _BATCH, nodes)) for first in range(0, nodes, _BATCH)]
    with ProcessPoolExecutor(_WORKERS) as pool:
        shared = ([each] * len(batches) for each in (pods_per_node, apps))
        list(pool.map(_create, [config] * len(batches), batches, *shared))


def _create(config: Mapping[str, Any], nodes: Iterable[int], pods: int, apps: int) -> None:
    admin = Admin(config)
    for node in nodes:
        admin.request("POST", "/api/v1/nodes", node_document(node))
        for number in range(pods):
            labels = {"app": f"app-{number % apps}", "pod-template-hash": "5d8c7f9b4d"}
            document = pod(NAMESPACE, pod_name(node, number), node, labels, "default")
            bring_up(admin, document, f"10.{node >> 8}.{node & 255}.{number + 2}")


def create_agent(admin: Admin, node: int, release: tuple[str, str, dict[str, str]]) -> str:
    """Create the ready pod of an agent. Returns a token as its kubelet would get it: it names the node."""
    namespace, account, labels = release
    made = bring_up(admin, pod(namespace, agent_name(node), node, labels, account), "192.0.2.1")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": agent_name(node), "uid": made["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    asked = {"spec": {"boundObjectRef": bound, "expirationSeconds": 7200}}
    return str(admin.request("POST", path, asked)["status"]["token"])


def bring_up(admin: Admin, document: dict[str, Any], address: str) -> dict[str, Any]:
    """Create a pod that runs and is ready."""
    namespace, name = (document["metadata"][key] for key in ("namespace", "name"))
    made: dict[str, Any] = admin.request("POST", f"/api/v1/namespaces/{namespace}/pods", document)
    admin.made.update((("POST", "pods"), ("PATCH", "pods")))
    admin.merge(f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": _running(address)})
    return made


def set_ready(admin: Admin, namespace: str, name: str, *, ready: bool) -> None:
    """Write whether a pod is ready, as its kubelet does."""
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _STAMP}
    admin.made["PATCH", "pods"] += 1
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
    kind = "application/strategic-merge-patch+json"
    admin.request("PATCH", path, {"status": {"conditions": [condition]}}, kind)


def node_document(number: int) -> dict[str, Any]:
    """Return a node that is ready."""
    labels = {"kubernetes.io/hostname": node_name(number), "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(number), "labels": labels},
        "spec": {"podCIDR": f"10.{number >> 8}.{number & 255}.0/24"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _STAMP}]},
    }


def pod(namespace: str, name: str, node: int, labels: Mapping[str, str], account: str) -> dict[str, Any]:
    """Return a pod of a Deployment, bound to its node by name, because no scheduler runs."""
    container = {
        "name": "main",
        "image": "registry.example.com/team/application:1.2.3",
        "env": [
            {"name": f"SETTING_{number}", "value": "a value of some length " * 2} for number in range(12)
        ],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/application"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "annotations": {"checksum/config": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b"},
        },
        "spec": {
            "nodeName": node_name(node),
            "serviceAccountName": account,
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": "application"}}],
        },
    }


def _running(address: str) -> dict[str, Any]:
    """Return the status as a kubelet writes it."""
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "192.0.2.1",
        "startTime": _STAMP,
        "conditions": [{"type": each, "status": "True", "lastTransitionTime": _STAMP} for each in types],
        "containerStatuses": [
            {
                "name": "main",
                "image": "registry.example.com/team/application:1.2.3",
                "imageID": f"registry.example.com/team/application@sha256:{'0' * 64}",
                "containerID": f"containerd://{'0' * 64}",
                "ready": True,
                "restartCount": 0,
                "started": True,
                "state": {"running": {"startedAt": _STAMP}},
            }
        ],
    }
