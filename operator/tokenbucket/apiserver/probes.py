"""Serve the liveness and readiness probes of the kubelet over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from tokenbucket.pacing import Backoffs

log = logging.getLogger(__name__)

Answer = Callable[[], str]
"""Returns the problem, or an empty text."""


async def serve(host: str, port: int, *, healthy: Answer, ready: Answer) -> None:
    """Serve ``/healthz`` and ``/readyz`` until it is canceled. If the address is in use, retry."""
    application = web.Application()
    application.router.add_get("/healthz", _handler(healthy))
    application.router.add_get("/readyz", _handler(ready))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        for wait_s in Backoffs():
            try:
                await web.TCPSite(runner, host, port).start()
                await asyncio.Event().wait()
            except OSError as error:
                log.warning("probes not answered", extra={"error": str(error)})
            await asyncio.sleep(wait_s)
    finally:
        await runner.cleanup()


def _handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_: web.Request) -> web.Response:
        wrong = answer()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    return respond
