"""Pace the lists and watches that a watch begins again.

kopf begins a watch again at once, or after a list, if the API server or a proxy ends it. If each one ends
soon, thousands of agents would overload the server.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from tokenbucket.pacing import LONGEST_BACKOFF_S, Backoffs


@dataclass(slots=True)
class RestartPace:
    """The requests of one watch. Lists and watches that succeed again within 20 s are delayed."""

    clock: Callable[[], float] = time.monotonic
    _began_at: dict[bool, float] = field(default_factory=dict)
    """Time of the last accepted list and of the last accepted watch that no delay has followed."""
    _backoffs: dict[bool, Iterator[float]] = field(default_factory=dict)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Delay a request if the last one of its kind began shortly before."""
        is_watch = "watch" in request.url.query
        if "continue" in request.url.query or not (is_watch or is_list(request)):
            return await handler(request)
        await asyncio.sleep(self.wait_s(is_watch=is_watch))
        response = await handler(request)
        self.answered(is_watch=is_watch, ok=response.ok)
        return response

    def answered(self, *, is_watch: bool, ok: bool) -> None:
        """Record the answer to a request."""
        if ok:
            self._began_at[is_watch] = self.clock()

    def wait_s(self, *, is_watch: bool) -> float:
        """Return the delay of a request in seconds. A request that fails is retried without another delay."""
        lasted_s = self.clock() - self._began_at.pop(is_watch, -math.inf)
        if lasted_s == math.inf:
            return 0.0
        if lasted_s > LONGEST_BACKOFF_S:
            self._backoffs.pop(is_watch, None)
            return 0.0
        return next(self._backoffs.setdefault(is_watch, iter(Backoffs())))


def is_list(request: aiohttp.ClientRequest) -> bool:
    """Return whether a request lists objects, and is no watch, single object or API discovery."""
    parts = request.url.path.strip("/").split("/")
    prefix = 2 if parts[0] == "api" else 3
    rest = parts[prefix:]
    of_namespace = len(rest) == 3 and rest[0] == "namespaces"
    return request.method == "GET" and "watch" not in request.url.query and (len(rest) == 1 or of_namespace)
