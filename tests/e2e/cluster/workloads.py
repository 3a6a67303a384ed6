"""Documents of the pods and services that tests use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .client import client_image

HTTP_PORT = 80
IPERF_PORT = 5201
_SERVE = (
    "mkdir /tmp/www; hostname >/tmp/www/index.html;"
    f" busybox httpd -p [::]:{HTTP_PORT} -h /tmp/www; exec iperf3 --server --port {IPERF_PORT}"
)


def pod(
    name: str,
    node: str = "",
    labels: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    **spec: object,
) -> dict[str, Any]:
    """Return a pod that waits or runs ``command``, on ``node`` if given. ``spec`` is added to its spec."""
    container: dict[str, Any] = {
        "name": "main",
        **client_image(),
        "command": list(command or _WAIT),
        "securityContext": {"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}},
    }
    where = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {"app": name})},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **where, **spec},
    }


def server(name: str, node: str = "", labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a pod that returns its name over HTTP and answers iperf3, on both IP versions."""
    return pod(name, node, labels, ["sh", "-c", _SERVE])


def service(name: str, selector: Mapping[str, str], port: int = HTTP_PORT) -> dict[str, Any]:
    """Return a dual-stack service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": dict(selector), "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": port}]},
    }


_WAIT = ("sleep", "infinity")
