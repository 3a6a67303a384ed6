"""Serve an HTTP application with bounds on connections, their rate and duration, and the size of requests.

Everything that can reach the address can connect. A client that keeps connections open takes at most all
connections of this address, and no memory beyond that.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from aiohttp import web

from tokenbucket.apiserver.paced_listener import Listener
from tokenbucket.core.api.live import LiveRequest, error_document, parse_request
from tokenbucket.errors import SpecError
from tokenbucket.pacing import Backoffs

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 64
_LONGEST_S = 15.0
"""Longest duration of a connection: a slow client cannot keep it."""
_RENEW_S = 3600.0
_STOP_S = 1.0
"""Time for requests that are not answered yet, when the server stops."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AnswerError(Exception):
    """The answer to a request that failed, with the object, the problem and the action."""

    def __init__(self, status: int, subject: str, problem: str, action: str) -> None:
        super().__init__(f"{subject}: {problem}; {action}")
        self.status, self.document = status, error_document(subject, problem, action)


def application(routes: list[web.RouteDef], most_bytes: int) -> web.Application:
    """Return an application that answers errors as JSON. Requests have at most ``most_bytes`` bytes."""
    app = web.Application(client_max_size=most_bytes, middlewares=[_explain_errors])
    app.add_routes(routes)
    return app


@web.middleware
async def _explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AnswerError as error:
        return web.json_response(error.document, status=error.status)
    except web.HTTPException as error:
        action = "see docs/reference/live.md"
        return web.json_response(error_document(request.path, error.reason, action), status=error.status)


async def parsed(request: web.Request) -> LiveRequest:
    """Return the content of a request. Raises AnswerError."""
    try:
        return parse_request(await request.read())
    except SpecError as error:
        problem = error.problems[0]
        message, _, action = problem.message.partition("; ")
        field = f"{error.subject}.{problem.field}" if problem.field else error.subject
        raise AnswerError(400, field, message, action) from error


async def serve(
    app: web.Application, host: str, port: int, what: str, tls: tuple[Path, Path] | None = None
) -> None:
    """Serve until it is canceled. If the address is in use or the certificate is missing, log and retry.

    Serve all IPv4 and IPv6 addresses if ``host`` is empty.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        for wait_s in Backoffs():
            try:
                await _listen(runner, host, port, tls)
            except OSError as error:
                fields = {"served": what, "address": f"{host}:{port}", "error": str(error)}
                log.warning("address not served", extra=fields)
            await asyncio.sleep(wait_s)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int, tls: tuple[Path, Path] | None) -> None:
    """Listen until it is canceled. Raises OSError, also for an invalid certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    if context and tls:
        context.load_cert_chain(*tls)
    listener = Listener(host, port, lambda: _protocol(runner), context, _LONGEST_S)
    accepting = asyncio.ensure_future(listener.accept())
    try:
        while not (await asyncio.wait([accepting], timeout=_RENEW_S))[0]:
            if context and tls:  # its issuer replaces it before it expires
                context.load_cert_chain(*tls)
        accepting.result()
    finally:
        accepting.cancel()


def _protocol(runner: web.AppRunner) -> asyncio.Protocol | None:
    """Return the protocol of a new connection, which ends after a time. ``None`` if there are too many."""
    server = runner.server
    return _Bounded(server()) if server and len(server.connections) < _MOST_CONNECTIONS else None


class _Bounded(asyncio.Protocol):
    """A connection that ends after a time, also if the client reads nothing."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort = cast("asyncio.Transport", transport).abort
        self._timer = asyncio.get_running_loop().call_later(_LONGEST_S, abort)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._protocol.connection_lost(exc)
