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
APPS = 10
"""Pods of a node are of so many applications, and each application has a policy."""
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
        """Raises RuntimeError when the server refuses."""
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

    def request(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The same, for documents."""
        return json.loads(self.text(method, path, body, kind))

    def merge(self, path: str, patch: object) -> Any:
        """A JSON merge patch."""
        return self.request("PATCH", path, patch, _MERGE)


def node_name(number: int) -> str:
    return f"node-{number:05}"


def pod_name(node: int, number: int) -> str:
    return f"{node_name(node)}-{number:03}"


def create_fleet(
    config: Mapping[str, Any], nodes: int, pods_per_node: int, release: tuple[str, str, dict[str, str]]
) -> dict[str, str]:
    """Makes all of it; several processes share the work. Returns the agents' tokens by node.

    ``release`` is the agents' namespace, their service account, and their labels.
    """
    batches = [range(first, min(first + _BATCH, nodes)) for first in range(0, nodes, _BATCH)]
    with ProcessPoolExecutor(_WORKERS) as pool:
        count = len(batches)
        made = pool.map(_create, [config] * count, batches, [pods_per_node] * count, [release] * count)
        return {node: token for tokens in made for node, token in tokens.items()}


def _create(
    config: Mapping[str, Any], nodes: Iterable[int], pods: int, release: tuple[str, str, dict[str, str]]
) -> dict[str, str]:
    admin = Admin(config)
    tokens = {}
    for node in nodes:
        admin.request("POST", "/api/v1/nodes", _node(node))
        for number in range(pods):
            labels = {"app": f"app-{number % APPS}", "pod-template-hash": "5d8c7f9b4d"}
            document = pod(NAMESPACE, pod_name(node, number), node, labels, "default")
            _bring_up(admin, document, f"10.{node >> 8}.{node & 255}.{number + 2}")
        tokens[node_name(node)] = _agent(admin, node, release)
    return tokens


def _agent(admin: Admin, node: int, release: tuple[str, str, dict[str, str]]) -> str:
    """The agent's pod, ready, and a token as its kubelet would get it: it names the node."""
    namespace, account, labels = release
    name = f"agent-{node_name(node)}"
    made = _bring_up(admin, pod(namespace, name, node, labels, account), "192.0.2.1")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": made["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    asked = {"spec": {"boundObjectRef": bound, "expirationSeconds": 7200}}
    return str(admin.request("POST", path, asked)["status"]["token"])


def _bring_up(admin: Admin, document: dict[str, Any], address: str) -> dict[str, Any]:
    namespace, name = (document["metadata"][key] for key in ("namespace", "name"))
    made: dict[str, Any] = admin.request("POST", f"/api/v1/namespaces/{namespace}/pods", document)
    admin.merge(f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": _running(address)})
    return made


def _node(number: int) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": node_name(number), "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(number), "labels": labels},
        "spec": {"podCIDR": f"10.{number >> 8}.{number & 255}.0/24"},
    }


def pod(namespace: str, name: str, node: int, labels: Mapping[str, str], account: str) -> dict[str, Any]:
    """A pod as a Deployment makes it; on its node by name, as no scheduler runs."""
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
    """The status as a kubelet writes it."""
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
