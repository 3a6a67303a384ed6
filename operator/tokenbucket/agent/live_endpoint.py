"""Serve the live figures of pods to the controller, in a thread of its own.

A request takes CPU time of the node. The agent therefore answers one request after the other, and rests nine
times as long as an answer took: all requests together use at most a tenth of a CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from aiohttp import web

from tokenbucket.agent.live import LiveFigures
from tokenbucket.agent.options import LiveOptions
from tokenbucket.apiserver.bounded_http import AnswerError, application, parsed, serve
from tokenbucket.core.api.live import AGENT_PATH, MOST_BYTES
from tokenbucket.errors import TokenBucketError

log = logging.getLogger(__name__)

_REST = 9
_MOST_WAITING = 8
_WAIT_S = 3.0
_MINUTE_S = 60.0
_STOP_S = 2.0


class Endpoint:
    """Answers requests. Belongs to one event loop."""

    def __init__(self, figures: LiveFigures) -> None:
        self._figures = figures
        self._worker = ThreadPoolExecutor(1, "live-reader")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._rests_until = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        wanted = await parsed(request)
        try:
            content = await self._in_turn(lambda: json.dumps(self._figures.answer(wanted)))
        except TokenBucketError as error:
            log.warning("live figures not read", extra={"error": str(error)})
            subject = f"node {self._figures.node}"
            raise AnswerError(500, subject, str(error), "see the log of the agent") from error
        return web.Response(text=content, content_type="application/json")

    async def _in_turn(self, read: Callable[[], str]) -> str:
        busy = AnswerError(
            503, f"node {self._figures.node}", "the agent has too many requests", "retry later"
        )
        if self._waiting >= _MOST_WAITING:
            raise busy
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_S):
                return await asyncio.shield(await self._start(read))
        except TimeoutError:
            raise busy from None
        finally:
            self._waiting -= 1

    async def _start(self, read: Callable[[], str]) -> asyncio.Future[str]:
        """Start a read after the one before and its rest. The turn lasts until the read ends.

        A read cannot be canceled, also if its request has waited too long.
        """
        await self._turn.acquire()
        try:
            await asyncio.sleep(self._rests_until - time.monotonic())
            reading = asyncio.get_running_loop().run_in_executor(self._worker, self._timed, read)
        except BaseException:
            self._turn.release()
            raise
        reading.add_done_callback(self._ended)
        return reading

    def _timed(self, read: Callable[[], str]) -> str:
        """Return a result, and rest afterwards in proportion to the CPU time that it took."""
        start = time.thread_time()
        try:
            return read()
        finally:
            self._rests_until = time.monotonic() + _REST * (time.thread_time() - start)

    def _ended(self, reading: asyncio.Future[str]) -> None:
        self._turn.release()
        with contextlib.suppress(asyncio.CancelledError):
            reading.exception()  # its request may no longer wait for it

    async def record_minutes(self) -> None:
        """Read the counters once a minute, until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._worker, self._figures.record_minute)
            except TokenBucketError as error:
                log.warning("counters of the minute not read", extra={"error": str(error)})
            await asyncio.sleep(_MINUTE_S)


@contextmanager
def serving(options: LiveOptions, figures: LiveFigures) -> Iterator[None]:
    """Serve for the block, in threads of their own. If the address is in use, log and retry."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop, options, figures), name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(_STOP_S)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _run(loop: asyncio.AbstractEventLoop, options: LiveOptions, figures: LiveFigures) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner, contextlib.suppress(asyncio.CancelledError):
        runner.run(_serve(options, figures))


async def _serve(options: LiveOptions, figures: LiveFigures) -> None:
    endpoint = Endpoint(figures)
    app = application([web.post(AGENT_PATH, endpoint.answer)], MOST_BYTES)
    await asyncio.gather(
        serve(app, options.host, options.port, "live figures"),
        endpoint.record_minutes(),
    )
