"""Create an event if a condition of a policy becomes bad."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.resources import EVENTS
from tokenbucket.controller.objects import MANAGER
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.status.summary import PolicyHead
from tokenbucket.errors import ApiError

log = logging.getLogger(__name__)

_INTERVAL_S = 300.0
"""Minimum interval of events of one policy with the same reason."""


@dataclass(slots=True)
class Events:
    """At most one event for each policy and reason in five minutes, for all pods together."""

    _created: dict[tuple[str, str], float] = field(default_factory=dict)
    """Time of the last event by uid and reason."""

    async def create(
        self,
        client: Client,
        head: PolicyHead,
        after: Iterable[Mapping[str, Any]],
        before: Iterable[Mapping[str, Any]],
    ) -> None:
        """Create events for the conditions that have become bad.

        A rejected event is not retried, because the status has the same message. Raises ApiError if the API
        server is unavailable.
        """
        known = {
            (condition.get("type"), condition.get("reason")) for condition in before if _is_bad(condition)
        }
        now = time.monotonic()
        for condition in after:
            key = head.uid, str(condition["reason"])
            last = self._created.get(key)
            if not _is_bad(condition) or (condition["type"], condition["reason"]) in known:
                continue
            if last is not None and now - last < _INTERVAL_S:
                continue
            self._created[key] = now
            try:
                await client.create(EVENTS, head.namespace, _event(head, condition))
            except ApiError as error:
                if not error.status:
                    raise
                details = {"policy": f"{head.namespace}/{head.name}", "error": str(error)}
                log.warning("event rejected", extra=details)

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other policies, which no longer exist."""
        self._created = {key: at for key, at in self._created.items() if key[0] in uids}


def _is_bad(condition: Mapping[str, Any]) -> bool:
    kind, status = condition.get("type"), condition.get("status")
    return (kind, status) in {("Accepted", "False"), ("Degraded", "True")}


def _event(head: PolicyHead, condition: Mapping[str, Any]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"apiVersion": API_VERSION, "kind": POLICY, "namespace": head.namespace, "name": head.name}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": head.namespace, "generateName": f"{head.name[:230]}."},
        "involvedObject": {**about, "uid": head.uid},
        "type": "Warning",
        "reason": condition["reason"],
        "message": condition["message"][:1024],
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
