"""A cluster whose agents answer for their pods: lists of pods, and the relay behind the API server."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

from tokenbucket.bpf.slots import Meters
from tokenbucket.core.api.live import error_document, parse_request
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode, Rate
from tokenbucket.core.limits.bucket import bucket_of
from tokenbucket.core.limits.slot import Owner, Slot, SlotKey, config_of
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.node.document import as_document
from tokenbucket.node.snapshot import AttachPoint, LimitSnapshot

SECOND = 10**9
BITS = 10_000_000
PROXY = "/api/v1/namespaces/tokenbucket-system/services/tokenbucket-live:live/proxy/v1/nodes/"
UNSET = Meters(0, 0, 0)

Counters = Callable[[int], Stats]
"""The counters of a limit after a number of seconds."""


def steady(bytes_per_s: int = 625_000, dropped: int = 0, delayed: int = 0, wait_ns: int = 0) -> Counters:
    """Return counters of constant traffic. 625,000 bytes per second are half of the limit."""
    return lambda seconds: Stats(
        in_window_packets=1000 * seconds,
        conform_bytes=bytes_per_s * seconds,
        dropped_packets=dropped * seconds,
        delayed_packets=delayed * seconds,
        delayed_ns=delayed * wait_ns * seconds,
    )


@dataclass
class LivePod:
    """A pod and its limits."""

    name: str
    node: str
    namespace: str = "shop"
    policy: str = "web"
    limits: dict[Direction, Counters] = field(default_factory=lambda: {Direction.INGRESS: steady()})
    reasons: list[dict[str, str]] = field(default_factory=list)
    mode: Mode = Mode.ENFORCE
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def document(self, seconds: int) -> dict[str, Any]:
        """Return the pod in the answer of the agent."""
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "pod": self.name,
            "policies": dict.fromkeys([each.value for each in self.limits], self.policy)
            | {each["direction"]: self.policy for each in self.reasons},
            "limits": [
                self._limit(direction, count(seconds), seconds) for direction, count in self.limits.items()
            ],
            "reasons": self.reasons,
            "foreignPrograms": [],
        }

    def _limit(self, direction: Direction, stats: Stats, seconds: int) -> dict[str, Any]:
        limit = Limit(Rate(bits_per_s=BITS), exceed_action=ExceedAction.DROP)
        config = config_of(
            bucket_of(limit, self.mode, action=ExceedAction.DROP), direction, node_reserve=False
        )
        slot = Slot(
            Owner(SlotKey(PodId(self.namespace, self.name, self.uid), direction), self.policy, 1), config
        )
        place = AttachPoint(f"veth-{self.name}", Hook.EGRESS)
        now_ns = (1000 + seconds) * SECOND
        document = as_document(LimitSnapshot(1, slot, (place,), UNSET, stats, now_ns))
        return document | {
            "monotonicNanoseconds": now_ns,
            "active": True,
            "effective": "10Mbit/s, burst 125kB",
        }


class LiveCluster:
    """Use as a context manager. Each request to a node is one second after the one before."""

    def __init__(self, folder: Path, pods: list[LivePod]) -> None:
        self.pods = pods
        self.asked: list[tuple[str, frozenset[str]]] = []
        """Nodes and uids of the requests to the relay."""
        self.broken: dict[str, tuple[int, dict[str, Any]]] = {}
        """Answers of nodes that do not answer with figures."""
        self.held: dict[str, threading.Event] = {}
        """Nodes that answer only after an event."""
        self.seconds: Counter[str] = Counter()
        self.queries: list[dict[str, list[str]]] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*cluster.get(self.path))

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*cluster.post(self.path, content))

            def _answer(self, status: int, document: dict[str, Any]) -> None:
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        config = {
            "current-context": "live",
            "contexts": [
                {"name": "live", "context": {"cluster": "live", "user": "live", "namespace": "shop"}}
            ],
            "clusters": [
                {"name": "live", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
            ],
            "users": [{"name": "live", "user": {}}],
        }
        self.kubeconfig = folder / "live-kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in self.held.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()

    def get(self, target: str) -> tuple[int, dict[str, Any]]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.queries.append(query)
        if path.endswith("/tokenbucketnodes"):
            return 403, {"kind": "Status", "message": 'User "u" cannot list resource "tokenbucketnodes"'}
        parts = path.split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
        return 200, {"items": [
            {
                "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "spec": {"nodeName": pod.node},
                "status": {"phase": "Running"},
            }
            for pod in self.pods
            if namespace in {"", pod.namespace}
        ]}  # fmt: skip

    def post(self, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        if not path.startswith(PROXY):
            return 403, {"kind": "Status", "message": 'User "u" cannot create resource "services/proxy"'}
        node = path.removeprefix(PROXY).partition("/")[0]
        uids = parse_request(content).uids
        self.asked.append((node, uids))
        if node in self.held:
            self.held[node].wait()
        if node in self.broken:
            return self.broken[node]
        self.seconds[node] += 1
        found = [
            pod.document(self.seconds[node]) for pod in self.pods if pod.node == node and pod.uid in uids
        ]
        return 200, {"version": 1, "node": node, "enforcement": "Enforce", "reconciled": True, "pods": found}

    def fail(self, node: str) -> None:
        """Let the relay answer that the agent of a node is silent."""
        document = error_document(f"node {node}", "its agent does not answer", "check the pod of the agent")
        self.broken[node] = 504, document


def main() -> None:
    """Serve a cluster with varied traffic, to look at screens: prints the path of a kubeconfig."""
    import tempfile

    pods = [
        LivePod(
            f"web-5d8f7c6b9-{number:03}",
            f"node-{number % 2}",
            limits={
                Direction.INGRESS: steady(1_250_000 * (number % 12) // 11, dropped=3 * (number % 7)),
                Direction.EGRESS: steady(100_000 * (number % 5), delayed=number % 50, wait_ns=20_000_000),
            },
        )
        for number in range(110)
    ]
    with LiveCluster(Path(tempfile.mkdtemp()), pods) as cluster:
        print(cluster.kubeconfig, flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()
