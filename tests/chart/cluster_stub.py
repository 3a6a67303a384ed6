"""An API server with one namespace. Helm renders for it as for a cluster, with hooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_NAMESPACES = {"name": "namespaces", "kind": "Namespace", "namespaced": False, "verbs": ["get"]}
_ANSWERS: dict[str, dict[str, object]] = {
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_NAMESPACES]},
    "/api/v1/namespaces/default": {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": "default"},
    },
}
_MISSING = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = _ANSWERS.get(self.path.partition("?")[0])
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found or _MISSING).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def cluster_stub() -> Iterator[str]:
    """Run the server. Yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
