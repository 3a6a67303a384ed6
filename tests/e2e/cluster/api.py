"""A few requests to the API server, for the harness itself: no process per question."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ClusterError

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Api:
    """Requests as the user of a kubeconfig that this package has written."""

    kubeconfig: Path

    def ready(self) -> bool:
        """Return whether the server reports that it is ready."""
        try:
            return self._request("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> Any:
        """Return the document at ``path``. Raises ClusterError without a successful answer."""
        try:
            status, text = self._request(path)
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError("kube-apiserver", f"GET {path}: {error}") from error
        if status != 200:
            raise ClusterError("kube-apiserver", f"GET {path}: status {status}", text)
        return json.loads(text)

    def ready_nodes(self) -> set[str]:
        """Return the names of the nodes that are ready."""
        return {node["metadata"]["name"] for node in self.get("/api/v1/nodes")["items"] if _is_ready(node)}

    def boots(self) -> dict[str, str]:
        """Return the last boot of each node that the server knows."""
        return {
            node["metadata"]["name"]: node["status"].get("nodeInfo", {}).get("bootID", "")
            for node in self.get("/api/v1/nodes")["items"]
        }

    def _request(self, path: str) -> tuple[int, str]:
        config = json.loads(self.kubeconfig.read_text())
        address = urlsplit(config["clusters"][0]["cluster"]["server"])
        connection = http.client.HTTPSConnection(
            address.hostname or "",
            address.port,
            timeout=_TIMEOUT_S,
            context=_context(config),
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _context(config: dict[str, Any]) -> ssl.SSLContext:
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(
            base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        )
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
