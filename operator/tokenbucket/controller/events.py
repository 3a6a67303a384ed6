"""Create an event if a condition of a policy becomes bad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.events import Events
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.status.policy_conditions import ConditionReason
from tokenbucket.core.status.summary import PolicyHead


async def create_events(
    events: Events,
    client: Client,
    head: PolicyHead,
    after: Iterable[Mapping[str, Any]],
    before: Iterable[Mapping[str, Any]],
) -> None:
    """Create events for the conditions that have become bad. Raises ApiError, as :class:`Events`."""
    known = {(condition.get("type"), condition.get("reason")) for condition in before if _is_bad(condition)}
    about = {"apiVersion": API_VERSION, "kind": POLICY, "namespace": head.namespace, "name": head.name}
    for condition in after:
        if _is_bad(condition) and (condition["type"], condition["reason"]) not in known:
            reason, message = str(condition["reason"]), condition["message"]
            await events.create(client, {**about, "uid": head.uid}, reason, message)


def _is_bad(condition: Mapping[str, Any]) -> bool:
    kind, status = condition.get("type"), condition.get("status")
    if kind == "Ready":
        return status == "Unknown" or condition.get("reason") in {
            ConditionReason.FAILED,
            ConditionReason.REJECTED,
        }
    return (kind, status) in {("Accepted", "False"), ("Degraded", "True")}
