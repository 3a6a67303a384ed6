"""Compute the AgentReady condition of a TokenBucketNode.

An agent that does not run cannot report its own state. The controller derives the state from the agent pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

AGENT_READY = "AgentReady"
_GOOD = ("True", "Ready", "the agent pod is ready")
_ABSENT = (
    "False",
    "NoPod",
    "the node has no agent pod: existing limits stay active, new pods are not limited",
)


def agent_condition(pods: Mapping[str, bool], previous: Iterable[object], now: str) -> dict[str, Any]:
    """Return the condition. The transition time changes only if the status changes.

    ``pods`` maps each agent pod on the node to its readiness. ``now`` is an RFC 3339 time.
    """
    status, reason, message = _verdict(pods)
    same = (each for each in previous if isinstance(each, Mapping) and each.get("type") == AGENT_READY)
    since = next((each.get("lastTransitionTime") for each in same if each.get("status") == status), None)
    return {
        "type": AGENT_READY,
        "status": status,
        "lastTransitionTime": since or now,
        "reason": reason,
        "message": message,
    }


def _verdict(pods: Mapping[str, bool]) -> tuple[str, str, str]:
    if any(pods.values()):
        return _GOOD
    if not pods:
        return _ABSENT
    message = f"pod {min(pods)} is not ready: existing limits stay active, new pods are not limited"
    return "False", "NotReady", message
