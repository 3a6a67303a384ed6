"""Serve the liveness and readiness probes of the kubelet over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Answer = Callable[[], str]
"""Returns the problem, or an empty text."""


@asynccontextmanager
async def serve(host: str, port: int, *, healthy: Answer, ready: Answer) -> AsyncIterator[None]:
    """Serve ``/healthz`` and ``/readyz`` for the block. Raises OSError if the address is in use."""
    application = web.Application()
    application.router.add_get("/healthz", _handler(healthy))
    application.router.add_get("/readyz", _handler(ready))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_: web.Request) -> web.Response:
        wrong = answer()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    return respond
