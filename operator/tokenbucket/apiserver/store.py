"""Store the last known state of objects. One thread fills the store, other threads read it.

Lists and events can overtake one another. A list from the cache of the API server can be older than an event
that a watch has delivered. Resource versions order lists and events: they are comparable integers (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from tokenbucket.apiserver.resources import metadata_of

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace and name. The namespace of a cluster-scoped object is empty."""


class Store(Generic[T]):
    """Parsed objects of one kind. ``parse`` returns ``None`` for an object to ignore."""

    def __init__(
        self, parse: Callable[[Mapping[str, Any]], T | None], changed: Callable[[], None] = lambda: None
    ) -> None:
        """Create a store. The filling thread calls ``changed`` after a change of a value."""
        self._parse = parse
        self._changed = changed
        self._lock = threading.Lock()
        self._values: dict[Key, T | None] = {}
        self._versions: dict[Key, int] = {}
        self._removed: dict[Key, int] = {}
        """Resource versions of objects that events removed since the newest list."""
        self._listed_at = -1
        self.doubtful = False
        """Whether the last list was empty, but the store is not. The store waits for a second empty list."""
        self.synced = threading.Event()
        """Set after the first list."""

    def values(self) -> tuple[T, ...]:
        """Return all values."""
        with self._lock:
            return tuple(value for value in self._values.values() if value is not None)

    def get(self, namespace: str, name: str) -> T | None:
        """Return one value, or ``None``."""
        with self._lock:
            return self._values.get((namespace, name))

    def put(self, document: Mapping[str, Any]) -> None:
        """Add or update an object."""
        with self._lock:
            changed = self._put(document, present=False)
        if changed:
            self._changed()

    def remove(self, document: Mapping[str, Any]) -> None:
        """Remove an object. ``document`` is its last state."""
        key, version = _key(document), _version(document)
        with self._lock:
            known = self._versions.get(key, -1)
            self._removed[key] = max(version, self._removed.get(key, -1))
            gone = key in self._values and (version < 0 or known <= version)
            if gone:
                self._drop(key)
        if gone:
            self._changed()

    def replace(self, items: list[Mapping[str, Any]], version: int) -> None:
        """Replace all objects by a list. Keep objects that are newer than the list."""
        keys = {_key(item) for item in items}
        with self._lock:
            if not items and self._values and not self.doubtful:
                self.doubtful = True
                return
            self.doubtful = changed = False
            for key in [key for key in self._values if key not in keys]:
                if self._versions[key] <= version:
                    self._drop(key)
                    changed = True
            for item in items:
                changed |= self._put(item, present=version >= self._listed_at)
            self._listed_at = max(self._listed_at, version)
            self._removed = {key: at for key, at in self._removed.items() if at > self._listed_at}
            first = not self.synced.is_set()
            self.synced.set()
        if changed or first:
            self._changed()

    def _put(self, document: Mapping[str, Any], *, present: bool) -> bool:
        key, version = _key(document), _version(document)
        known = self._versions.get(key)
        if known is not None and 0 <= version < known:
            return False
        gone_at = max(self._removed.get(key, -1), -1 if present else self._listed_at)
        if known is None and 0 <= version <= gone_at:
            return False  # from before an event that removed the object, or before a list that lacks it
        value = self._parse(document)
        before = self._values.get(key)
        self._values[key], self._versions[key] = value, version
        return value != before

    def _drop(self, key: Key) -> None:
        del self._values[key], self._versions[key]


def version_of(metadata: Mapping[str, Any]) -> int:
    """Return a resource version as a number, or -1 if it is invalid."""
    text = metadata.get("resourceVersion")
    return int(text) if isinstance(text, str) and text.isdecimal() else -1


def _version(document: Mapping[str, Any]) -> int:
    return version_of(metadata_of(document))


def _key(document: Mapping[str, Any]) -> Key:
    metadata = metadata_of(document)
    return metadata.get("namespace") or "", metadata.get("name") or ""
