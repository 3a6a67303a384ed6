"""Create an event if a condition of a policy becomes bad."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbucket.apiserver.client import Client
from tokenbucket.apiserver.events import Events
from tokenbucket.core.api.parse import API_VERSION, POLICY
from tokenbucket.core.status.policy_conditions import ConditionReason
from tokenbucket.core.status.summary import PolicyHead

_RETRY_S = 30.0
"""Pause after an event that was one too many."""

_Key = tuple[str, str]
"""Type and reason of a condition."""


@dataclass(slots=True)
class ConditionEvents:
    """One event for each condition that becomes bad. ``again`` requests a run after a number of seconds."""

    events: Events
    again: Callable[[float], None]
    _created: dict[str, dict[_Key, bool]] = field(default_factory=dict)
    """Whether each bad condition of a policy has its event, by uid. An event that is one too many follows
    later, if the condition is still bad."""

    async def create(
        self,
        client: Client,
        head: PolicyHead,
        after: Iterable[Mapping[str, Any]],
        before: Iterable[Mapping[str, Any]],
    ) -> None:
        """Create the events of a new status. Raises ApiError, as :class:`Events`.

        Bad conditions of the status ``before`` have their events, unless this process knows better.
        """
        bad = {_key(condition): str(condition.get("message") or "") for condition in filter(_is_bad, after)}
        known = self._created.get(head.uid)
        if known is None:
            known = {_key(condition): True for condition in filter(_is_bad, before)}
        created = self._created[head.uid] = {key: known.get(key, False) for key in bad}
        about = {"apiVersion": API_VERSION, "kind": POLICY, "namespace": head.namespace, "name": head.name}
        about["uid"] = head.uid
        for key, message in bad.items():
            created[key] = created[key] or await self.events.create(client, about, key[1], message)
        if not all(created.values()):
            self.again(_RETRY_S)

    def is_behind(self, uid: str) -> bool:
        """Return whether a bad condition of a policy has no event yet."""
        return not all(self._created.get(uid, {}).values())

    def retain(self, uids: Collection[str]) -> None:
        """Forget all other policies, which no longer exist."""
        self.events.retain(uids)
        self._created = {uid: created for uid, created in self._created.items() if uid in uids}


def _key(condition: Mapping[str, Any]) -> _Key:
    return str(condition.get("type")), str(condition.get("reason"))


def _is_bad(condition: Mapping[str, Any]) -> bool:
    kind, status = condition.get("type"), condition.get("status")
    if kind == "Ready":
        return status == "Unknown" or condition.get("reason") in {
            ConditionReason.FAILED,
            ConditionReason.REJECTED,
        }
    return (kind, status) in {("Accepted", "False"), ("Degraded", "True")}
