"""Watch objects with kopf: one operator and one thread for each kind. An operator fills a store.

kopf has no store, and does not report objects that were deleted while a watch was
broken (a list after "410 Gone" has no events of deletion), so every list that it reads goes
into the store as a whole: see :func:`tokenbucket.apiserver.connection.open_session`.

kopf ends on an error in a stream, and while it watches another kind as well it never comes to the end: its
watcher of the other kind waits for credentials that do not arrive. Hence each operator watches one kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import kopf
from yarl import URL

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.connection import find_server, open_session
from tokenbucket.apiserver.resources import GROUP, Resource, Selection, metadata_of, version_of
from tokenbucket.apiserver.restart_pace import RestartPace
from tokenbucket.apiserver.store import Store
from tokenbucket.errors import UnsupportedError
from tokenbucket.pacing import LONGEST_BACKOFF_S, Backoffs

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Watch:
    """Keep a store up to date, from :meth:`start` to :meth:`stop`."""

    selection: Selection
    store: Store[Any]
    namespace: str | None = None
    """Namespace to watch. ``None`` means the whole cluster."""
    page: int = 0
    """Read lists from the storage in pages of so many objects. 0 reads them whole, from the cache."""
    rewritten: bool = False
    """Whether all objects are written again and again. Only a missed event of deletion then needs a list."""
    contact_at: float = -math.inf
    """Monotonic time of the last list, event or bookmark."""
    problem: str = ""
    """Problem that ended the last attempt. Empty after a list."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _cancel: Callable[[], object] = lambda: None
    _thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Return whether the thread runs. It also runs while the API server is unavailable."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, delay_s: Callable[[], float] = lambda: 0.0) -> None:
        """Start the thread. It waits ``delay_s()`` first. Raises UnsupportedError without credentials."""
        find_server()
        self._thread = threading.Thread(target=self._run, args=(delay_s,), name=f"watch-{self}", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return self.selection.resource.plural

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        with contextlib.suppress(RuntimeError):  # its event loop is closed: it is between two attempts
            self._cancel()
        if self._thread:
            self._thread.join(_STOP_TIMEOUT_S)

    async def relist(self, client: Client) -> None:
        """List all objects again. Raises ApiError."""
        if self.page:
            await client.read_pages(self.selection, self.namespace, self.page)
        else:
            await client.list(self.selection, self.namespace)

    async def check_storage(self, client: Client) -> None:
        """Prepare the store for older lists if the storage was restored from a backup. Raises ApiError."""
        seen = self.store.version
        if self.store.restored(await client.storage_version(self.selection, self.namespace), seen):
            log.warning("storage of the API server restored", extra={"of": str(self)})

    def heard(self) -> None:
        """Record that something arrived from the API server."""
        self.contact_at = time.monotonic()

    def listed(self, url: URL, content: Mapping[str, Any]) -> None:
        """Store a list. Ignore lists of other objects, including those of the same kind."""
        if self.selection.lists(url, self.namespace):
            self.heard()
            self.problem = ""
            metadata = metadata_of(content)
            first, last = "continue" not in url.query, not metadata.get("continue")
            self.store.replace(content.get("items") or [], version_of(metadata), first=first, last=last)

    def _run(self, delay_s: Callable[[], float]) -> None:
        wait, backoffs = delay_s(), iter(Backoffs())
        while not self._stop.wait(wait):
            began = time.monotonic()
            try:
                asyncio.run(self._operate())
            except Exception as error:  # noqa: BLE001 - kopf ends on an error in a stream; limits must not
                self.problem = f"{self}: {str(error) or type(error).__name__}"
                log.warning(
                    "watch ended", extra={"of": str(self), "error": f"{type(error).__name__}: {error}"}
                )
            if time.monotonic() - began > LONGEST_BACKOFF_S:
                backoffs = iter(Backoffs())
            wait = next(backoffs)

    async def _operate(self) -> None:
        # Not by kopf's stop flag: it waits for that in a thread, which an operator that failed waits for.
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{self}: not called by a task; run it with asyncio.run")
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        if self._stop.is_set():
            return
        with contextlib.suppress(asyncio.CancelledError):
            await self._check_served()
            await kopf.operator(
                settings=self._settings(),
                registry=self._registry(),
                standalone=True,
                # For peering, which is off; else it is made of a user name, which a container need not have.
                identity="tokenbucket",  # type: ignore[arg-type] # a text of a private type
                clusterwide=self.namespace is None,
                namespaces=[self.namespace] if self.namespace else [],
            )

    async def _check_served(self) -> None:
        """Check that the kind exists, because kopf ignores missing kinds. Raises UnsupportedError."""
        async with Client() as client:
            if not await client.serves(self.selection.resource):
                raise UnsupportedError("the API server does not know this kind; install the CRDs")

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.posting.enabled = False
        # kopf removes a finalizer with this name from objects. The name must not match foreign finalizers.
        settings.persistence.finalizer = f"{GROUP}/never-set"
        settings.watching.server_timeout = 300 + random.randrange(120)  # noqa: S311 - no secret
        settings.watching.connect_timeout = 10
        settings.watching.reconnect_backoff = random.uniform(0.2, 1.0)  # noqa: S311 - no secret
        settings.networking.request_timeout = 60
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = Backoffs()
        settings.networking.enforce_retry_after = False  # it would replace a longer backoff
        settings.process.ultimate_exiting_timeout = None
        # An idle worker holds the last event of its object: with the default, all events of 5 s.
        settings.queueing.idle_timeout = 0.1
        settings.watching.chunk_size = self.page or None
        key = _key(self.selection.resource)
        if self.selection.fields:
            settings.watching.field_selectors[key] = self.selection.fields
        if self.selection.labels:
            settings.watching.label_selectors[key] = self.selection.labels
        return settings

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: object) -> kopf.AiohttpSession:
            info = find_server()
            return kopf.AiohttpSession(
                server=info.server,
                aiohttp_session=open_session(info, self.listed, self.heard, RestartPace()),
            )

        @kopf.on.event(*_key(self.selection.resource), registry=registry, id=str(self))
        async def take_in(event: Mapping[str, Any], **_: object) -> None:
            with contextlib.suppress(KeyError):
                if event["type"] == "DELETED":
                    self.store.remove(event["object"])
                else:
                    self.store.put(event["object"])

        return registry


def _key(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural
