"""Read the labels of the pods of nodes or namespaces in pages. One read can take several runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tokenbucket.apiserver.client import FORBIDDEN, GONE, Client
from tokenbucket.apiserver.resources import Selection, metadata_of
from tokenbucket.core.api.selector import Selector
from tokenbucket.errors import ApiError
from tokenbucket.pacing import pause_after

_KEPT_S = 30.0
_LONGEST_S = 60.0
"""Maximum pause between two reads. New pods on a silent node must be found soon."""
_OUTDATED_S = 90.0
"""Duration of errors after which known pods are unknown again."""
_PER_RUN = 20
"""Maximum number of pages per run. Many nodes can become silent at once."""
_PAGE = 250
_SHARE = 0.1
"""Share of the time in which pods are read again, unless the pause is the longest one."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a node or a namespace."""

    due: float
    """Time of the next read."""
    groups: Mapping[str, Collection[Labels]] | None
    """Labels by group. ``None`` if the pods are unknown, because the API server rejects the read."""
    _selected: dict[Selector | None, frozenset[str]] = field(default_factory=dict)
    _selects: dict[tuple[Selector | None, str], bool] = field(default_factory=dict)

    async def selected(self, selector: Selector | None) -> frozenset[str]:
        """Return the groups with a pod that a selector, or ``None``, selects. Compare each pod only once."""
        if selector not in self._selected:
            found = set()
            for group in self.groups or ():
                await asyncio.sleep(0)  # thousands of pods take time, and the probes share the thread
                if self._compare(selector, group):
                    found.add(group)
            self._selected[selector] = frozenset(found)
        return self._selected[selector]

    def selects(self, selector: Selector | None, group: str) -> bool:
        """Return whether a selector, or ``None``, selects a pod of a group. Compare each pod only once."""
        key = selector, group
        if key not in self._selects:
            self._selects[key] = self._compare(selector, group)
        return self._selects[key]

    def _compare(self, selector: Selector | None, group: str) -> bool:
        pods = (self.groups or {}).get(group, ())
        return bool(pods) and (selector is None or any(map(selector.matches, pods)))


@dataclass(slots=True)
class _Read:
    """A read between two pages."""

    began: float
    following: str = ""
    groups: dict[str, dict[frozenset[tuple[str, str]], Labels]] = field(default_factory=dict)


@dataclass(slots=True)
class PodLists:
    """The pods of nodes or namespaces, read again from time to time."""

    clock: Callable[[], float]
    select: Callable[[str], tuple[Selection, str | None]]
    """Returns the selection and the namespace of a read."""
    group: Callable[[Mapping[str, Any]], str]
    """Returns the group of a pod, or an empty text for a pod that does not matter."""
    known: dict[str, Pods] = field(default_factory=dict)
    _reads: dict[str, _Read] = field(default_factory=dict)
    _failing: dict[str, float] = field(default_factory=dict)
    """Time of the first error since the last complete read."""

    def expire(self) -> None:
        """Read everything again because pods of more groups matter. Keep the known pods until then."""
        self.known = {name: replace(pods, due=-math.inf) for name, pods in self.known.items()}
        self._reads.clear()

    def unread(self, names: Collection[str]) -> bool:
        """Return whether pods of one of the names have not been read yet."""
        return any(self._due(name) == -math.inf for name in names)

    def due(self, names: Collection[str]) -> float:
        """Return the time of the next read."""
        return min(map(self._due, names), default=math.inf)

    def _due(self, name: str) -> float:
        return self.known[name].due if name in self.known else -math.inf

    async def update(self, client: Client, names: Collection[str], now: float) -> None:
        """Read some pages of the pods that are due, and forget all other names. Raises ApiError."""
        self.known = {name: pods for name, pods in self.known.items() if name in names}
        self._reads = {name: read for name, read in self._reads.items() if name in names}
        self._failing = {name: since for name, since in self._failing.items() if name in names}
        requests = 0
        for name in sorted((name for name in names if self._due(name) <= now), key=self._order):
            more = True
            while more:
                if requests == _PER_RUN:
                    return
                requests += 1
                more = await self._read_page(client, name, now)

    def _order(self, name: str) -> tuple[float, float, str]:
        """Sort names by time. Names with errors delay no others."""
        return self._due(name), self._failing.get(name, -math.inf), name

    async def _read_page(self, client: Client, name: str, now: float) -> bool:
        """Read the next page. Return whether to read one more in this run."""
        read = self._reads.setdefault(name, _Read(self.clock()))
        try:
            items, read.following = await client.page(*self.select(name), _PAGE, read.following)
        except ApiError as error:
            if not error.status:
                raise
            self._fail(name, error.status, now)
            return False
        for item in items:
            if group := self.group(item):  # most pods of a namespace are on nodes with agents
                labels = metadata_of(item).get("labels") or {}
                read.groups.setdefault(group, {})[frozenset(labels.items())] = labels
        if not read.following:
            self._end(name, now)
        return bool(read.following)

    def _end(self, name: str, now: float) -> None:
        read = self._reads.pop(name)
        self._failing.pop(name, None)
        pause_s = min(_LONGEST_S, pause_after(self.clock() - read.began, _KEPT_S, _SHARE))
        groups = {group: tuple(labels.values()) for group, labels in read.groups.items()}
        self.known[name] = Pods(now + pause_s, groups)

    def _fail(self, name: str, status: int, now: float) -> None:
        """Handle an error. Unless it is permanent, a later run continues with the same page.

        Known pods stay known, and other pods stay unread. All become unknown if the errors last.
        """
        if status in {FORBIDDEN, GONE}:  # the position of the next page has expired
            self._reads.pop(name, None)
        unread = self._due(name) == -math.inf
        lasts = now - self._failing.setdefault(name, now) >= (_KEPT_S if unread else _OUTDATED_S)
        if status == FORBIDDEN or lasts:  # forbidden also by the role of an earlier release
            self.known[name] = Pods(now + _KEPT_S, None)
        elif not unread:
            self.known[name] = replace(self.known[name], due=now + _KEPT_S)
