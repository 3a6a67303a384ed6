"""Store the last known state of objects. One thread fills the store, other threads read it.

Lists and events can overtake one another. A list from the cache of the API server can be older than an event
that a watch has delivered. Resource versions order lists and events: they are comparable integers (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from tokenbucket.apiserver.resources import metadata_of, version_of

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace and name. The namespace of a cluster-scoped object is empty."""


class Store(Generic[T]):
    """Parsed objects of one kind. ``parse`` returns ``None`` for an object to ignore."""

    def __init__(
        self,
        parse: Callable[[Mapping[str, Any]], T | None],
        changed: Callable[[], None] = lambda: None,
        merge: Callable[[T | None, T | None], T | None] = lambda _, now: now,
    ) -> None:
        """Create a store. The filling thread calls ``changed`` after a change of a value.

        ``merge`` receives the previous and the new value of an object, and returns the value to store.
        """
        self._parse, self._merge = parse, merge
        self._changed = changed
        self._lock = threading.Lock()
        self._values: dict[Key, T | None] = {}
        self._versions: dict[Key, int] = {}
        self._removed: dict[Key, int] = {}
        """Resource versions of objects that events removed since the newest list."""
        self._pages: dict[int, set[Key]] = {}
        """Objects in the first pages of lists that are not complete, by the version of the list."""
        self._listed_at = -1
        self.version = -1
        """Newest resource version that an event or a list contained."""
        self.changed_at = -1
        """Newest resource version that changed a value."""
        self.doubtful = False
        """Whether the last list was empty, but the store is not. The store waits for a second empty list."""
        self.older = False
        """Whether the last list was older than a list before. The storage may have been restored."""
        self.synced = threading.Event()
        """Set after the first list."""

    @property
    def in_doubt(self) -> bool:
        """Return whether the store needs another list soon."""
        return self.doubtful or self.older

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
            changed = self._put(document)
        if changed:
            self._changed()

    def remove(self, document: Mapping[str, Any]) -> None:
        """Remove an object. ``document`` is its last state."""
        key, version = _key(document), _version(document)
        with self._lock:
            self.version = max(version, self.version)
            known = self._versions.get(key, -1)
            self._removed[key] = max(version, self._removed.get(key, -1))
            gone = key in self._values and (version < 0 or known <= version)
            if gone:
                self._drop(key)
        if gone:
            self._changed()

    def replace(
        self, items: list[Mapping[str, Any]], version: int, *, first: bool = True, last: bool = True
    ) -> None:
        """Replace all objects by a list. Keep objects that are newer than the list.

        ``items`` can be a page of the list. The last page removes the objects that no page contains.
        """
        with self._lock:
            changed = False
            for item in items:
                changed |= self._put(item, version)
            keys = self._pages.pop(version, set() if first else None)
            if keys is not None:
                keys |= {_key(item) for item in items}
                if last:
                    changed |= self._complete(keys, version)
                else:
                    # Aborted lists leave their first pages. At most two lists run at the same time.
                    self._pages = dict(list(self._pages.items())[-1:]) | {version: keys}
            elif last:  # another list was complete in between, or the pages have different versions
                changed |= self._set_synced()
        if changed:
            self._changed()

    def _complete(self, keys: set[Key], version: int) -> bool:
        """Remove all objects that a list does not contain. Return whether that or the list is news."""
        self._pages.clear()
        if not keys and self._values and not self.doubtful:
            self.doubtful = True
            return False
        self.doubtful = changed = False
        self.older = version < self._listed_at
        for key in [key for key in self._values if key not in keys]:
            if self._versions[key] <= version:
                self._drop(key)
                changed = True
        self._listed_at = max(self._listed_at, version)
        self.version = max(self.version, version)
        self._removed = {key: at for key, at in self._removed.items() if at > self._listed_at}
        return self._set_synced() or changed

    def _set_synced(self) -> bool:
        """Return whether this was the first list."""
        first = not self.synced.is_set()
        self.synced.set()
        return first

    def restored(self, version: int, seen: int) -> bool:
        """Return whether the storage was restored from a backup. The next list then replaces all objects.

        ``version`` is that of the storage, ``seen`` that of the store before the storage was read.
        """
        with self._lock:
            if not 0 <= version < seen:
                return False
            self.older = True
            self._listed_at = self.version = self.changed_at = -1
            self._versions = dict.fromkeys(self._versions, -1)
            self._removed.clear()
            return True

    def _put(self, document: Mapping[str, Any], listed: int = -1) -> bool:
        """Store an object of an event, or of a list with the version ``listed``."""
        key, version = _key(document), _version(document)
        self.version = max(version, self.version)
        known = self._versions.get(key)
        if known is not None and 0 <= version < known and listed < known:
            return False
        gone_at = max(self._removed.get(key, -1), -1 if listed >= self._listed_at else self._listed_at)
        if known is None and 0 <= version <= gone_at:
            return False  # from before an event that removed the object, or before a list that lacks it
        before = self._values.get(key)
        value = self._merge(before, self._parse(document))
        self._values[key], self._versions[key] = value, version
        if value == before:
            return False
        self.changed_at = max(version, self.changed_at)
        return True

    def _drop(self, key: Key) -> None:
        del self._values[key], self._versions[key]


def _version(document: Mapping[str, Any]) -> int:
    return version_of(metadata_of(document))


def _key(document: Mapping[str, Any]) -> Key:
    metadata = metadata_of(document)
    return metadata.get("namespace") or "", metadata.get("name") or ""
