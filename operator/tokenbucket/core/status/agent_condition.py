"""Whether a node's agent is ready, as a condition of its TokenBucketNode: a pure function.

A dead agent cannot say that it is dead; the controller says it, from the agent's pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

AGENT_READY = "AgentReady"
_GOOD = ("True", "Ready", "the agent's pod is ready")
_ABSENT = ("False", "NoPod", "the node has no pod of the agent: limits stay as they were, new pods get none")


def agent_condition(pods: Mapping[str, bool], previous: Iterable[object], now: str) -> dict[str, Any]:
    """The condition; given its own result as the previous one, an equal one.

    ``pods`` are the agent's pods on the node, and whether each is ready; ``now`` is RFC 3339.
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
    message = f"pod {min(pods)} is not ready: limits stay as they were, new pods get none"
    return "False", "NotReady", message
