"""What the API server last said of some objects: filled by one thread, read by another.

Lists and events arrive by different ways and may overtake one another, and a list from the API server's cache
may be older than what a watch has delivered already. Resource versions put them in order: they are comparable
whole numbers (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from tokenbucket.apiserver.objects import metadata_of

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace, empty where there is none, and name."""


class Store(Generic[T]):
    """Objects of one kind, parsed. ``parse`` returns ``None`` for what is of no interest."""

    def __init__(
        self, parse: Callable[[Mapping[str, Any]], T | None], changed: Callable[[], None] = lambda: None
    ) -> None:
        """``changed`` is called, in the thread that fills the store, whenever a value changes."""
        self._parse = parse
        self._changed = changed
        self._lock = threading.Lock()
        self._values: dict[Key, T | None] = {}
        self._versions: dict[Key, int] = {}
        self._removed: dict[Key, int] = {}
        """Objects that events removed since the newest list, and when: an older list still has them."""
        self._listed_at = -1
        self.doubtful = False
        """A list says that everything is gone. That is believed when a second one says so, too."""
        self.synced = threading.Event()
        """Set once everything there was has been listed."""

    def values(self) -> tuple[T, ...]:
        """All there is now."""
        with self._lock:
            return tuple(value for value in self._values.values() if value is not None)

    def get(self, namespace: str, name: str) -> T | None:
        """One object, ``None`` when there is none."""
        with self._lock:
            return self._values.get((namespace, name))

    def put(self, document: Mapping[str, Any]) -> None:
        """The object is there and says this."""
        with self._lock:
            changed = self._put(document, present=False)
        if changed:
            self._changed()

    def remove(self, document: Mapping[str, Any]) -> None:
        """The object is no more; ``document`` is its last state."""
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
        """A list says that this is all there is: what is missing has gone, unless it came after the list."""
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
    """A resource version as a number; -1 where it is none."""
    text = metadata.get("resourceVersion")
    return int(text) if isinstance(text, str) and text.isdecimal() else -1


def _version(document: Mapping[str, Any]) -> int:
    return version_of(metadata_of(document))


def _key(document: Mapping[str, Any]) -> Key:
    metadata = metadata_of(document)
    return metadata.get("namespace") or "", metadata.get("name") or ""
