"""An API server in this process, on the loopback interface: lists, watches, and faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tokenbucket.apiserver.resources import Resource

Document = dict[str, Any]
_CUSTOM = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
_NAMESPACES = Resource("", "v1", "namespaces")
_PATH = re.compile(r"(?:/api|/apis/([^/]+))/([^/]+)(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?(?:/[^/]+)?")
END, RESET = object(), object()
"""How a watch can end: as when its time is over, and by a TCP reset."""


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str
    at_s: float = field(default_factory=time.monotonic)

    @property
    def watches(self) -> bool:
        return "watch" in self.query


def list_of(resource: Resource) -> Callable[[Seen], bool]:
    """Return whether a request lists these objects in all namespaces."""
    return lambda seen: (seen.method, seen.path) == ("GET", resource.path()) and not seen.watches


def watch_of(resource: Resource) -> Callable[[Seen], bool]:
    """Return whether a request watches these objects in all namespaces."""
    return lambda seen: seen.path == resource.path() and seen.watches


@dataclass(frozen=True)
class _Answer:
    """The answer to the next request of a kind."""

    where: Callable[[Seen], bool]
    content: Document
    status: int
    headers: Mapping[str, str]


@dataclass(eq=False)
class _Stream:
    """An open watch, and the data to send on it."""

    resource: Resource
    namespace: str
    selector: str
    queue: asyncio.Queue[object] = field(default_factory=asyncio.Queue)


class FakeApi:
    """Use as a context manager. While a test holds ``lock``, the server answers nothing."""

    def __init__(self, *kinds: Resource) -> None:
        self.kinds = {*kinds, _CUSTOM, _NAMESPACES}
        """What is served; others are not found."""
        self.token = ""
        """What a request must bear, if anything."""
        self.rejects = 0
        """The status with which each request is rejected, if any."""
        self.gone_as_status = False
        """Whether 410 is the status of an answer; otherwise it is an event of the watch."""
        self.requests: list[Seen] = []
        self.lock = threading.RLock()
        self._objects: dict[tuple[Resource, str, str], Document] = {}
        self._history: list[tuple[int, Resource, str, Document]] = []
        self._version = 100
        self._compacted = 0
        self._answers: list[_Answer] = []
        self._streams: list[_Stream] = []
        self._loop = asyncio.new_event_loop()
        self._port = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake API server")
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        asyncio.run_coroutine_threadsafe(_others_ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, after a stop on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def stop(self) -> None:
        """Reset watches, and reject new connections."""
        self.cut(RESET)
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    def put(self, resource: Resource, name: str, namespace: str = "", **content: Any) -> Document:
        """Create or replace an object. Return it."""
        with self.lock:
            key = (resource, namespace, name)
            metadata = {"name": name, "uid": f"{name}-uid", **content.pop("metadata", {})}
            metadata |= {"namespace": namespace} if namespace else {}
            self._note("MODIFIED" if key in self._objects else "ADDED", resource, metadata, content)
            self._objects[key] = {"metadata": metadata, **content}
            return self._objects[key]

    def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Remove an object."""
        with self.lock:
            content = self._objects.pop((resource, namespace, name))
            metadata = dict(content.pop("metadata"))
            self._note("DELETED", resource, metadata, content)

    def compact(self) -> None:
        """Forget the history: watches from before get 410 Gone."""
        with self.lock:
            self._version += 1
            self._compacted = self._version

    def restore(self, version: int) -> None:
        """Lose all objects and events, and go back to a version, like etcd from a backup."""
        with self.lock:
            self._objects.clear()
            self._history.clear()
            self._version = version
            self._compacted = 0

    def bookmark(self) -> None:
        """Send bookmarks to all watches."""
        with self.lock:
            self.send(_event("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}}))

    def send(self, part: object, *kinds: Resource) -> None:
        """Send this on every open watch, or on those of some kinds."""
        with self.lock:
            for stream in self._streams:
                if not kinds or stream.resource in kinds:
                    self._loop.call_soon_threadsafe(stream.queue.put_nowait, part)

    def cut(self, how: object, *kinds: Resource) -> None:
        """End every open watch, or those of some kinds, by END or RESET."""
        with self.lock:
            self.send(how, *kinds)
            self._streams = [each for each in self._streams if kinds and each.resource not in kinds]

    def answer(
        self,
        where: Callable[[Seen], bool],
        content: Document,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next request of a kind with this."""
        self._answers.append(_Answer(where, content, status, headers or {}))

    def fail(self, where: Callable[[Seen], bool], status: int, message: str = "", **headers: str) -> None:
        """Answer the next request of a kind with an error."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer(where, _failure(status, message), status=status, headers=named)

    def list(self, resource: Resource, selector: str = "", namespace: str = "") -> Document:
        """Return the current list, of all namespaces or of one."""
        with self.lock:
            items = [each for key, each in self._objects.items() if key[0] == resource]
            return {
                "kind": "List",
                "metadata": {"resourceVersion": str(self._version)},
                "items": [each for each in items if _selected(selector, namespace, each)],
            }

    def seen(self, where: Callable[[Seen], bool]) -> list[Seen]:
        """Return the requests of a kind so far."""
        return [each for each in tuple(self.requests) if where(each)]

    def watched(self, resource: Resource) -> bool:
        """Return whether a watch is open."""
        with self.lock:
            return any(stream.resource == resource for stream in self._streams)

    def _note(self, kind: str, resource: Resource, metadata: Document, content: Document) -> None:
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        document = {"metadata": metadata, **content}
        self._history.append((self._version, resource, kind, document))
        for stream in self._streams:
            if stream.resource == resource and _selected(stream.selector, stream.namespace, document):
                self._loop.call_soon_threadsafe(stream.queue.put_nowait, _event(kind, document))

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        await web.SockSite(self._runner, self._listener).start()
        self._port = self._listener.getsockname()[1]

    async def _stop(self) -> None:
        # asyncio forgets to close what has been accepted when its server goes before it is attached to it.
        self._loop.remove_reader(self._listener)
        await asyncio.sleep(0.01)
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), body)
        with self.lock:
            self.requests.append(seen)
            scripted = next((each for each in self._answers if each.where(seen)), None)
            if scripted:
                self._answers.remove(scripted)
                return web.json_response(scripted.content, status=scripted.status, headers=scripted.headers)
            if self.rejects:
                return _refused(self.rejects)
            if self.token and seen.headers.get("Authorization") != f"Bearer {self.token}":
                return _refused(401)
            if seen.watches:
                opened = self._open(seen)
            else:
                return self._answer(seen)
        return await self._send(request, opened) if isinstance(opened, _Stream) else opened

    def _open(self, seen: Seen) -> _Stream | web.Response:
        resource, namespace, _ = _target(seen.path)
        if resource not in self.kinds:
            return _refused(404)
        since = int(seen.query["resourceVersion"])
        stream = _Stream(resource, namespace, seen.query.get("fieldSelector", ""))
        if since < self._compacted:
            if self.gone_as_status:
                return _refused(410)
            for item in (_event("ERROR", _failure(410, "too old resource version")), END):
                stream.queue.put_nowait(item)
            return stream
        for version, of, kind, document in self._history:
            if version > since and of == resource and _selected(stream.selector, namespace, document):
                stream.queue.put_nowait(_event(kind, document))
        self._streams.append(stream)
        return stream

    async def _send(self, request: web.Request, stream: _Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            item = await stream.queue.get()
            if item is END:
                return response
            if item is RESET:
                _reset(request)
                return response
            with contextlib.suppress(ConnectionError):  # the client has gone
                await response.write(str(item).encode())

    def _answer(self, seen: Seen) -> web.Response:
        if seen.path in self._contents():
            return web.json_response(self._contents()[seen.path])
        resource, namespace, name = _target(seen.path)
        key = (resource, namespace, name)
        if resource not in self.kinds:
            return _refused(404)
        if seen.method == "GET" and not name:
            found = self.list(resource, seen.query.get("fieldSelector", ""), namespace)
            return web.json_response(_page_of(found, seen.query))
        if seen.method in {"POST", "PUT"}:
            return self._write(resource, namespace, json.loads(seen.body), seen.method)
        if key not in self._objects:
            return _refused(404, f'{resource.plural} "{name}" not found')
        if seen.method == "DELETE":
            self.delete(resource, name, namespace)
        return web.json_response(self._objects.get(key, {}))

    def _write(self, resource: Resource, namespace: str, document: Document, method: str) -> web.Response:
        """Create an object, or replace one that has not changed."""
        metadata = document["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{self._version}"
        known = self._objects.get((resource, namespace, name), {}).get("metadata", {})
        if known.get("resourceVersion") != (metadata.get("resourceVersion") if method == "PUT" else None):
            return _refused(409)
        content = {field: value for field, value in document.items() if field != "metadata"}
        return web.json_response(self.put(resource, name, namespace, **content), status=201)

    def _contents(self) -> dict[str, Document]:
        """Return, by path, the kinds that clients read first."""
        groups = {kind.group: {"version": kind.version} for kind in self.kinds if kind.group}
        contents: dict[str, Document] = {
            "/api": {"versions": ["v1"]},
            "/apis": {
                "groups": [
                    {"name": group, "preferredVersion": version, "versions": [version]}
                    for group, version in groups.items()
                ]
            },
        }
        for kind in self.kinds:
            resources = contents.setdefault(kind.path().rpartition("/")[0], {"resources": []})["resources"]
            resources.append(_kind(kind))
        return contents


def _page_of(found: Document, query: Mapping[str, str]) -> Document:
    """Cut a list to a page. The cache ignores the limit."""
    if query.get("resourceVersion") == "0" or "limit" not in query:
        return found
    # All pages have the version of the first one.
    now = found["metadata"]["resourceVersion"]
    version, _, first = query.get("continue", f"{now}/0").partition("/")
    first, size, items = int(first), int(query["limit"]), found["items"]
    metadata: Document = {"resourceVersion": version}
    if first + size < len(items):
        metadata["continue"] = f"{version}/{first + size}"
        metadata["remainingItemCount"] = len(items) - first - size
    return {**found, "metadata": metadata, "items": items[first : first + size]}


def _reset(request: web.Request) -> None:
    if request.transport:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _kind(resource: Resource) -> Document:
    namespaced = resource.plural not in {"nodes", "tokenbucketnodes", _CUSTOM.plural, _NAMESPACES.plural}
    verbs = ["get", "list", "watch", "patch"]
    return {
        "name": resource.plural,
        "kind": resource.plural,
        "singularName": "",
        "namespaced": namespaced,
        "verbs": verbs,
    }


def _target(path: str) -> tuple[Resource, str, str]:
    """Return kind, namespace and name. A subresource belongs to its object."""
    match = _PATH.fullmatch(path)
    group, version, namespace, plural, name = match.groups(default="") if match else [""] * 5
    return Resource(group, version, plural), namespace, name


def _selected(selector: str, namespace: str, document: Document) -> bool:
    wanted = [each.rpartition("=") for each in selector.split(",") if each]
    wanted += [("metadata.namespace", "=", namespace)] if namespace else []
    return all(
        (_field(document, path.removesuffix("!")) == value) != path.endswith("!") for path, _, value in wanted
    )


def _field(document: Document, path: str) -> object:
    return functools.reduce(lambda found, name: found.get(name, {}), path.split("."), document)


def _event(kind: str, document: Document) -> str:
    return json.dumps({"type": kind, "object": document}) + "\n"


def _failure(status: int, message: str) -> Document:
    return {"kind": "Status", "status": "Failure", "code": status, "message": message}


def _refused(status: int, message: str = "refused") -> web.Response:
    return web.json_response(_failure(status, message), status=status)


async def _others_ended() -> None:
    """Remove connections that were reset or closed."""
    await asyncio.sleep(0.01)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
