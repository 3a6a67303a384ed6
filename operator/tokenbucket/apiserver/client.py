"""Send single requests to the API server: lists and writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Self

import aiohttp

from tokenbucket.apiserver.connection import FIRST, Listed, find_server, open_session
from tokenbucket.apiserver.resources import Resource, Selection, metadata_of, version_of
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
_BOUNDED = {"timeout": "20s"}
"""Of the API server: its error is about one object, as of a webhook that hangs. No answer is an outage."""
_LONGEST_MESSAGE = 256
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
GONE = 410


class Client:
    """Use as an async context manager. Every method raises ApiError."""

    def __init__(self, listed: Listed | None = None) -> None:
        """Create a client. ``listed`` receives path and content of every list. Raises UnsupportedError."""
        self._info = find_server()
        self._listed = listed

    async def __aenter__(self) -> Self:
        self._session = open_session(self._info, self._listed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def serves(self, resource: Resource) -> bool:
        """Return whether the API server serves this kind of object."""
        try:
            contents = await self._request("GET", resource.path().rpartition("/")[0])
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return any(kind["name"] == resource.plural for kind in contents["resources"])

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return one object."""
        return await self._request("GET", resource.path(namespace, name))

    async def list(self, selection: Selection, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return the objects from the cache of the API server."""
        path = selection.resource.path(namespace)
        items: list[dict[str, Any]] = (await self._request("GET", path, selection.parameters)).get(
            "items"
        ) or []
        return items

    async def read_pages(self, selection: Selection, namespace: str | None, size: int) -> None:
        """Read the objects from the storage in pages, for the receiver of lists."""
        _, following = await self.page(selection, namespace, size)
        while following:
            _, following = await self.page(selection, namespace, size, following)

    async def page(
        self, selection: Selection, namespace: str | None, size: int, following: str = ""
    ) -> tuple[Sequence[dict[str, Any]], str]:
        """Return a page of the objects in the storage, and the position of the next page, if one follows.

        The position expires after some minutes: the error has the status GONE then.
        """
        parameters = {**selection.parameters, "limit": str(size)}
        if following:
            parameters["continue"] = following
        content = await self._request("GET", selection.resource.path(namespace), parameters)
        return content.get("items") or [], str(metadata_of(content).get("continue") or "")

    async def count(self, resource: Resource) -> int:
        """Return the number of objects. Read only one of them."""
        content = await self._request("GET", resource.path(), FIRST)
        return len(content.get("items") or ()) + int(content["metadata"].get("remainingItemCount") or 0)

    async def storage_version(self, selection: Selection, namespace: str | None = None) -> int:
        """Return the current resource version of the storage, not of the cache of the API server.

        Select objects only in a namespace, where the role may permit nothing else. In the whole cluster, a
        selector lets the API server read many objects from the storage to find one.
        """
        parameters = {**selection.parameters, **FIRST} if namespace else FIRST
        content = await self._request("GET", selection.resource.path(namespace), parameters)
        return version_of(metadata_of(content))

    async def apply(
        self, resource: Resource, document: Mapping[str, Any], manager: str, subresource: str = ""
    ) -> dict[str, Any]:
        """Apply a document on the server. Missing fields of this manager are removed, others stay.

        Return the object as the server stored it.
        """
        metadata = document["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        parameters = {"fieldManager": manager, "force": "true", **_BOUNDED}
        return await self._request("PATCH", path, parameters, document, _APPLY)

    async def patch(
        self, path: str, patch: Mapping[str, Any], *, merge_lists: bool = False
    ) -> dict[str, Any]:
        """Patch an object or its subresource. ``merge_lists`` merges lists by key, for built-in kinds.

        Return the object as the server stored it.
        """
        return await self._request("PATCH", path, _BOUNDED, patch, _STRATEGIC if merge_lists else _MERGE)

    async def create(self, resource: Resource, namespace: str | None, document: Mapping[str, Any]) -> None:
        """Create an object."""
        await self._request("POST", resource.path(namespace), _BOUNDED, document, "application/json")

    async def replace(self, resource: Resource, document: Mapping[str, Any]) -> None:
        """Replace an object. The API server rejects it if the object has another resource version."""
        metadata = document["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        await self._request("PUT", path, _BOUNDED, document, "application/json")

    async def delete(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Delete an object. Ignore a missing object."""
        try:
            await self._request("DELETE", resource.path(namespace, name), _BOUNDED)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "",
    ) -> dict[str, Any]:
        headers = {"Content-Type": content_type} if content_type else None
        data = json.dumps(body) if body is not None else None
        try:
            async with self._session.request(
                method, path, params=parameters, data=data, headers=headers, timeout=_TIMEOUT
            ) as response:
                text = await response.text()
                if not response.ok:
                    raise ApiError(method, path, response.status, _message(text) or response.reason or "")
                content = json.loads(text) if text else None
                return content if isinstance(content, dict) else {}
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise ApiError(method, path, 0, str(error) or type(error).__name__) from error


async def attempt(action: str, request: Awaitable[object]) -> bool:
    """Return whether the API server accepted a request. Log a failure, which the caller retries."""
    try:
        await request
    except ApiError as error:
        log.warning("%s failed", action, extra={"error": str(error)})
        return False
    return True


def _message(text: str) -> str:
    """Return the message of an error response: of a Status object, or the text of an overloaded server."""
    try:
        content = json.loads(text)
    except ValueError:
        return text.strip()[:_LONGEST_MESSAGE]
    return str(content.get("message") or "") if isinstance(content, dict) else ""
