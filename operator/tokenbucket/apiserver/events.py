"""Create Events about objects, at a bounded rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from tokenbucket import units
from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import EVENTS
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

_INTERVAL_S = 300.0
"""Minimum interval of events about one object with the same reason."""


@dataclass(slots=True)
class Events:
    """At most one event for each object and reason in five minutes."""

    component: str
    """The component that creates the events."""
    most: int = 1 << 16
    """Maximum number of events in five minutes, about all objects."""
    clock: Callable[[], float] = time.monotonic
    _created: dict[tuple[str, str], float] = field(default_factory=dict)
    """Time of the last event by uid and reason."""

    async def create(self, client: Client, about: Mapping[str, str], reason: str, message: str) -> bool:
        """Create an event, and return whether there were not too many. ``about`` refers to the object.

        A rejected event is not retried, because a status has the same message. Raises ApiError if the API
        server is unavailable.
        """
        now, key = self.clock(), (about["uid"], reason)
        recent = {of: at for of, at in self._created.items() if now - at < _INTERVAL_S}
        if key in recent or len(recent) >= self.most:
            return False
        try:
            await client.create(EVENTS, about["namespace"], self._event(about, reason, message))
        except ApiError as error:
            if not error.status:
                raise
            details = {"object": f"{about['namespace']}/{about['name']}", "error": str(error)}
            log.warning("event rejected", extra=details)
        self._created = {**recent, key: now}
        return True

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other objects, which no longer exist."""
        self._created = {key: at for key, at in self._created.items() if key[0] in uids}

    def _event(self, about: Mapping[str, str], reason: str, message: str) -> dict[str, object]:
        now = units.rfc3339(time.time())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": about["namespace"], "generateName": f"{about['name'][:230]}."},
            "involvedObject": dict(about),
            "type": "Warning",
            "reason": reason,
            "message": message[:1024],
            "source": {"component": self.component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
