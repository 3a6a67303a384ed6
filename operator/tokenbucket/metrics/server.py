"""Serve ``/metrics`` over HTTP in a separate thread, so that a scrape does not block limits or probes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tokenbucket.errors import TokenBucketError

log = logging.getLogger(__name__)

_RETRY_S = 30.0


@contextmanager
def serving(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Serve metrics for the block. If the address is in use, log an error and retry."""
    server = _Server(host, port, registry)
    thread = threading.Thread(target=server.run, name="metrics", daemon=True)
    thread.start()
    server.tried.wait()
    try:
        yield
    finally:
        server.stop()
        thread.join()


class _Server:
    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._host, self._port, self._registry = host, port, registry
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.tried = threading.Event()
        """Set after the first attempt to listen."""

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            self.tried.set()

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            while not await self._listen(runner) and not await self._stopped_within(_RETRY_S):
                pass
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> bool:
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            fields = {"address": f"{self._host}:{self._port}", "error": error.strerror}
            log.error("metrics not served", extra=fields)  # noqa: TRY400
            return False
        finally:
            self.tried.set()
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            return await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False

    async def _answer(self, request: web.Request) -> web.Response:
        """Render in the event loop, so that only one scrape at a time uses memory."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        try:
            body = encode(self._registry)
        except TokenBucketError as error:
            log.warning("metrics not served", extra={"error": str(error)})
            return web.Response(status=500, text=f"{error}\n")
        return web.Response(body=body, headers={"Content-Type": content_type})
