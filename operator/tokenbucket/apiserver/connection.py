"""Find the API server and the credentials: a service account of a pod, or a kubeconfig.

kopf's own login would need cluster DNS (``kubernetes.default.svc``), which an agent on the host's network
does not have while a node starts; the address is in every container's environment.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import kopf
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from yarl import URL

from tokenbucket import __version__
from tokenbucket.apiserver.restart_pace import is_list
from tokenbucket.errors import UnsupportedError
from tokenbucket.pacing import LONGEST_BACKOFF_S

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TOKEN_KEPT_S = 60.0
"""The kubelet writes a new token long before the old token expires. A rejected token is read again."""
_UNAUTHORIZED = 401
_LONGEST_PAUSE_S = 10.0
"""Below the timeout of a request."""

Listed = Callable[[URL, dict[str, Any]], None]
"""Receives URL and content of every list."""
FIRST = {"limit": "1", "resourceVersion": ""}
"""Parameters of a list that reads one object from the storage. Its metadata describe all objects."""


@dataclass(slots=True)
class _TokenFile:
    """The token of a service account, read periodically because the kubelet renews it."""

    path: Path
    _token: str = ""
    _read_at: float = field(default=float("-inf"))

    def current(self) -> str:
        if time.monotonic() - self._read_at > _TOKEN_KEPT_S:
            self._token, self._read_at = self.path.read_text().strip(), time.monotonic()
        return self._token

    def forget(self) -> None:
        """Read the token again before the next request."""
        self._read_at = float("-inf")


class Outage(NamedTuple):
    """The last time in which the API server did not answer reads for long. Shorter ones only count."""

    start: float = float("-inf")
    end: float = float("-inf")
    earlier_s: float = 0.0
    """Duration of all outages before this one."""
    later_s: float = 0.0
    """Duration of the short ones after it."""

    @property
    def total_s(self) -> float:
        """Return the duration of all outages, short ones too."""
        return self.earlier_s + (self.end - self.start if self.end > self.start else 0.0) + self.later_s

    def followed_by(self, start: float, end: float) -> Outage:
        """Return the outages after another one. A long one also delays the next reports of agents."""
        if end - start < LONGEST_BACKOFF_S:
            return self._replace(later_s=self.later_s + end - start)
        return Outage(start, end, self.total_s)


class Answers:
    """Responses of the API server by status, over all sessions of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._answered_at = float("-inf")
        self._away_at: float | None = None
        self.outage = Outage()

    def add(self, method: str, status: int, began_at: float | None = None) -> None:
        """Count one response to a request that began at ``began_at``. Status 0 means that none arrived."""
        now = time.monotonic()
        with self._lock:
            self._counts[method, status] += 1
            if not status or (method == "GET" and status in _UNREADABLE):
                if self._away_at is None:  # a request can wait for long before it fails
                    self._away_at = max(now if began_at is None else began_at, self._answered_at)
                return
            self._answered_at = now
            if self._away_at is not None:
                self.outage, self._away_at = self.outage.followed_by(self._away_at, now), None

    def counts(self) -> Mapping[tuple[str, int], int]:
        """Return the counts by method and status."""
        with self._lock:
            return dict(self._counts)


answers = Answers()
_UNREADABLE = frozenset({401, 500, 502, 503, 504})


class _Heard:
    """A response body that reports each part that arrives. kopf reads watches by ``iter_chunked`` alone."""

    def __init__(self, content: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._content, self._heard = content, heard

    def __getattr__(self, name: str) -> object:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for part in self._content.iter_chunked(size):
            self._heard()
            yield part


async def _unhurried(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """Wait as long as Retry-After demands, and longer by a random time: agents receive equal values."""
    response = await handler(request)
    pause = response.headers.get("Retry-After", "")
    if not response.ok and pause.isdecimal():
        await asyncio.sleep(min(int(pause) * random.uniform(1, 2), _LONGEST_PAUSE_S))  # noqa: S311 - no secret
    return response


async def _counted(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    began_at = time.monotonic()
    try:
        response = await handler(request)
    except (aiohttp.ClientError, OSError, TimeoutError):
        answers.add(request.method, 0, began_at)
        raise
    answers.add(request.method, response.status)
    return response


def find_server() -> kopf.ConnectionInfo:
    """Return the address and the credentials. Raises UnsupportedError if there are no credentials."""
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if found and host:
        found = _at(found, f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
    found = found or kopf.login_with_kubeconfig(settings=settings)
    if not found:
        raise UnsupportedError(
            "API server: no credentials found; run in a pod with a service account, or set KUBECONFIG"
        )
    return found


def _at(info: kopf.ConnectionInfo, server: str) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(server=server, ca_path=info.ca_path, default_namespace=info.default_namespace)


def open_session(
    info: kopf.ConnectionInfo,
    listed: Listed | None = None,
    heard: Callable[[], None] = lambda: None,
    pace: ClientMiddlewareType | None = None,
) -> aiohttp.ClientSession:
    """Return a session that the caller must close. Call it in the event loop that uses the session.

    Every list comes from the API server's cache (``resourceVersion=0``): otherwise older servers would decode
    all pods of the cluster to answer with those of one node. Lists in pages come from the storage.
    ``listed`` receives each list or page. ``heard`` is
    called when something arrives on a watch, including bookmarks, which kopf does not pass on. ``pace`` can
    delay requests.
    """
    token = _TokenFile(_TOKEN) if not info.token and not info.certificate_data and _TOKEN.exists() else None
    authorized = (_authorized_by(token),) if token else ()
    context = info.as_ssl_context()
    return aiohttp.ClientSession(
        base_url=info.server,
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers={**info.as_http_headers(), "User-Agent": f"tokenbucket/{__version__}"},
        middlewares=(
            *((pace,) if pace else ()),
            _unhurried,
            _trusted_by(context, info),
            *authorized,
            _from_cache(listed),
            _observed_by(heard),
            _counted,
        ),
    )


def _trusted_by(context: ssl.SSLContext, info: kopf.ConnectionInfo) -> ClientMiddlewareType:
    async def trusted(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """Read the CA certificates again if they do not fit: a rotation replaces their file."""
        try:
            return await handler(request)
        except aiohttp.ClientSSLError:
            if not info.ca_path:
                raise
            context.load_verify_locations(info.ca_path)
            return await handler(request)

    return trusted


def _authorized_by(token: _TokenFile) -> ClientMiddlewareType:
    async def authorized(
        request: aiohttp.ClientRequest, handler: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["Authorization"] = f"Bearer {token.current()}"
        response = await handler(request)
        if response.status != _UNAUTHORIZED:
            return response
        response.release()
        token.forget()
        request.headers["Authorization"] = f"Bearer {token.current()}"
        return await handler(request)

    return authorized


def _from_cache(listed: Listed | None) -> ClientMiddlewareType:
    async def from_cache(
        request: aiohttp.ClientRequest, handler: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if not is_list(request):
            return await handler(request)
        # The cache would ignore the limit.
        if not {"resourceVersion", "limit"} & request.url.query.keys():
            request.url = request.url.update_query(resourceVersion="0")
        response = await handler(request)
        if listed and response.ok and request.url.query.get("limit") != FIRST["limit"]:
            listed(request.url, await response.json())
        return response

    return from_cache


def _observed_by(heard: Callable[[], None]) -> ClientMiddlewareType:
    async def observed(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.ok and "watch" in request.url.query:
            heard()
            response.content = _Heard(response.content, heard)  # type: ignore[assignment]
        return response

    return observed
