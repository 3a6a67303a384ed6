"""An API server that rejects each request with 429. Run as a program with port, certificate and key."""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_STATUS = {"kind": "Status", "status": "Failure", "code": 429, "message": "too many requests"}


class _Busy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _reject(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(_STATUS).encode()
        self.send_response(429)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Retry-After", "1"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _reject  # noqa: N815 - names of the base class


def main(port: str, certificate: str, key: str) -> None:
    """Serve until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("", int(port)), _Busy) as server:
        # The handshake belongs to the thread of a connection, not to the one that accepts connections.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
