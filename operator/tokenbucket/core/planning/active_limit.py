"""Compute a limit as the agent enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tokenbucket.core.api.policy import Direction, ExceedAction, Limit, Mode
from tokenbucket.core.limits.bucket import action_of, bucket_of, describe
from tokenbucket.core.limits.slot import SlotConfig, config_of
from tokenbucket.core.planning.capabilities import Degradation
from tokenbucket.core.planning.reasons import Reason

_UNBOUNDED = Degradation(
    Reason.UNBOUNDED_QUEUE,
    "perPeer: could queue more than 16 MiB; declare or lower the rate of the pod; excess packets are dropped",
)


@dataclass(frozen=True, slots=True)
class ActiveLimit:
    """A limit as the agent enforces it."""

    config: SlotConfig
    text: str
    """The limit with its defaults, such as "100Mbit/s, burst 625kB, Delay 100ms"."""
    action: str
    degradation: Degradation | None = None
    """Why the action differs from the declared action."""


# Cached, because hundreds of pods can have the same limit.
@lru_cache(maxsize=4096)
def delays(limit: Limit) -> bool:
    """Return whether excess packets wait, if they can."""
    return action_of(limit) is ExceedAction.DELAY


@lru_cache(maxsize=4096)
def active_limit(limit: Limit, direction: Direction, no_queue: Degradation | None, mode: Mode) -> ActiveLimit:
    """Return a limit as the agent enforces it. ``no_queue`` is why packets cannot wait."""
    why_not = _why_not_delay(limit, no_queue)
    active = ExceedAction.DROP if why_not else limit.exceed_action
    bucket = bucket_of(limit, mode, action=active)
    # Only ingress packets of a pod can come from the node itself.
    config = config_of(bucket, direction, node_reserve=direction is Direction.INGRESS)
    if bucket.observe:  # nothing is enforced, so nothing is degraded
        return ActiveLimit(config, describe(bucket), Mode.OBSERVE.value)
    action = f"{active} (degraded: {why_not.reason.short})" if why_not else active.value
    return ActiveLimit(config, describe(bucket), action, why_not)


def _why_not_delay(limit: Limit, no_queue: Degradation | None) -> Degradation | None:
    if limit.exceed_action is not ExceedAction.DELAY:
        return None
    return no_queue if action_of(limit) is ExceedAction.DELAY else _UNBOUNDED
