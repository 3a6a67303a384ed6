"""The parts of the archive of ``kubectl tokenbucket sysdump``, as the cluster has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenbucket import __version__
from tokenbucket.plugin.connection import Connection
from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.live import LiveClient, find_service
from tokenbucket.plugin.redaction import REDACTED
from tokenbucket.plugin.resources import CONFIG_MAPS, EVENTS, NODES, PODS, POLICIES, REPORTS, Kind

_RELEASE = "app.kubernetes.io/part-of=tokenbucket"
_LOG_BYTES = 4 * 1024 * 1024
_LIVE_S = 10.0
_NODE_STATUS = ("conditions", "nodeInfo", "capacity")
_GROUP = "tokenbucket.dev"
_SETTINGS = {"enforcement", "cleanup"}
"""The keys of the ConfigMaps of the chart. Users can add others to them."""


@dataclass(slots=True)
class Dump:
    """Reads the parts one after the other, and notes what cannot be read."""

    connection: Connection
    log_lines: int
    live_service: str
    problems: list[str] = field(default_factory=list)
    answers: int = 0
    """Number of requests with an answer."""

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield names of files and contents: JSON values, or texts."""
        yield "versions.json", {"plugin": __version__, "server": self._version()}
        policies = self._list(POLICIES)
        yield "policies.json", policies
        yield "tokenbucketnodes.json", self._list(REPORTS)
        yield "nodes.json", [_node(each) for each in self._list(NODES)]
        pods = self._list(PODS, labelSelector=_RELEASE)
        yield "pods.json", pods
        namespaces = sorted({pod["metadata"]["namespace"] for pod in pods})
        for namespace in namespaces:
            found = self._list(CONFIG_MAPS, namespace, labelSelector=_RELEASE)
            yield f"configmaps-{namespace}.json", [_config_map(each) for each in found]
        yield "events.json", [each for each in self._list(EVENTS) if _concerns(each, namespaces)]
        for pod in pods:
            yield from self._logs(pod)
        yield "live.json", self._live(policies)

    def _version(self) -> Any:  # noqa: ANN401 - JSON
        try:
            found = self.connection.request("GET", "/version", "get /version")
        except PluginError as error:
            self.problems.append(f"version: {error}")
            return None
        self.answers += 1
        return found

    def _list(self, kind: Kind, namespace: str = "", **selectors: str) -> list[dict[str, Any]]:
        try:
            found = self.connection.list(kind, namespace, **selectors)
        except PluginError as error:
            self.problems.append(f"{kind}: {error}")
            return []
        self.answers += 1
        return found

    def _logs(self, pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the logs of all containers, and those of their last run if they started again."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        found = pod.get("status") or {}
        for status in (*(found.get("initContainerStatuses") or ()), *(found.get("containerStatuses") or ())):
            container = status["name"]
            yield from self._log(namespace, name, container, previous=False)
            if status.get("restartCount"):
                yield from self._log(namespace, name, container, previous=True)

    def _log(self, namespace: str, pod: str, container: str, *, previous: bool) -> Iterator[tuple[str, str]]:
        query = {
            "container": container,
            "previous": str(previous).lower(),
            "timestamps": "true",
            "tailLines": str(self.log_lines),
            "limitBytes": str(_LOG_BYTES),
        }
        file = f"logs/{namespace}/{pod}-{container}{'-previous' if previous else ''}.log"
        try:
            path, right = f"{PODS.path(namespace, pod)}/log", f"get pods/log in namespace {namespace}"
            yield file, self.connection.text(path, right, query)
        except PluginError as error:
            self.problems.append(f"{file}: {error}")

    def _live(self, policies: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the live figures of the pods in namespaces with policies."""
        namespaces = sorted({policy["metadata"]["namespace"] for policy in policies})
        uids: dict[str, list[str]] = defaultdict(list)
        for namespace in namespaces:
            for pod in self._list(PODS, namespace):
                if node := (pod.get("spec") or {}).get("nodeName"):
                    uids[node].append(pod["metadata"]["uid"])
        try:
            service = find_service(self.live_service, self.connection)
            figures = LiveClient(self.connection, service).fetch(uids, _LIVE_S)
        except PluginError as error:
            self.problems.append(f"live figures: {error}")
            return {}
        self.problems += [f"live figures of node {node}: {why}" for node, why in figures.silent.items()]
        return {"pods": list(figures.pods.values()), "silent": dict(figures.silent)}


def _node(node: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a node that explain limits. Labels and annotations of nodes can have secrets."""
    metadata, status = node["metadata"], node.get("status") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if _GROUP in name}
    kept = {name: status.get(name) for name in _NODE_STATUS}
    return {
        "name": metadata["name"],
        "labels": labels,
        "status": kept,
        "taints": (node.get("spec") or {}).get("taints"),
    }


def _config_map(document: dict[str, Any]) -> dict[str, Any]:
    """Return a ConfigMap with the values of the product only."""
    data = document.get("data") or {}
    kept = {key: value if key in _SETTINGS else REDACTED for key, value in data.items()}
    return {"metadata": document["metadata"], "data": kept}


def _concerns(event: dict[str, Any], namespaces: list[str]) -> bool:
    """Return whether an event is about the release, or from it."""
    about, source = event.get("involvedObject") or {}, event.get("reportingComponent") or ""
    component = str((event.get("source") or {}).get("component") or source)
    return (
        about.get("namespace") in namespaces
        or str(about.get("apiVersion", "")).startswith(_GROUP)
        or "tokenbucket" in component
    )
