"""Keep the limits of policies of which this agent knows no valid version.

An agent that starts after a policy uses a newer part of the API rejects the policy. The limit that an earlier
run attached is the last valid version, as far as the kernel contains it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Mode, RejectedPolicy
from tokenbucket.core.limits.slot import Owner, Slot, SlotConfig

_DELAY: Mapping[str, Any] = {"max_delay_q": 0, "longest_backlog_q": 0, "pacing": False}
"""The fields of a limit that delays packets, and their values if it does not."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The settings that apply to all policies on a node."""

    mode: Mode = Mode.ENFORCE
    """The enforcement mode."""
    kept: Mapping[PodId, Mapping[Direction, Slot]] = field(default_factory=dict)
    """The limits of rejected policies, by pod."""


def kept_limits(
    slots: Iterable[Slot], rejected: Iterable[RejectedPolicy], pods: Iterable[Pod]
) -> dict[PodId, dict[Direction, Slot]]:
    """Return the limits of rejected policies. A recreated policy begins at generation 1."""
    generations = {
        (each.namespace, each.name): each.generation
        for each in rejected
        if not (each.last_valid or each.forbidden)
    }
    running = {pod.id for pod in pods if not pod.ended} if generations else set()
    found: dict[PodId, dict[Direction, Slot]] = {}
    for slot in slots:
        owner, pod = slot.owner, slot.owner.key.subject
        if owner.key.is_guard or not isinstance(pod, PodId) or pod not in running:
            continue
        if owner.generation <= generations.get((pod.namespace, owner.policy), -1):
            found.setdefault(pod, {})[owner.key.direction] = slot
    return found


def with_delays(
    kept: Mapping[PodId, Mapping[Direction, Slot]], known: Mapping[Owner, SlotConfig]
) -> dict[PodId, dict[Direction, Slot]]:
    """Return kept limits with the delays of before. The slot of a limit that has no queue contains none."""
    return {
        pod: {direction: _with_delay(slot, known.get(slot.owner)) for direction, slot in limits.items()}
        for pod, limits in kept.items()
    }


def _with_delay(slot: Slot, known: SlotConfig | None) -> Slot:
    if not known or slot.config.max_delay_q:
        return slot
    delay = {name: getattr(known, name) for name in _DELAY}
    return replace(slot, config=replace(slot.config, **delay))


def delays_of(kept: Mapping[PodId, Mapping[Direction, Slot]]) -> dict[Owner, SlotConfig]:
    """Return the kept limits that delay packets, by owner."""
    slots = (slot for limits in kept.values() for slot in limits.values())
    return {slot.owner: slot.config for slot in slots if slot.config.max_delay_q}


def kept_config(config: SlotConfig, enforcement: Mode, *, can_delay: bool) -> SlotConfig:
    """Return the configuration of a kept limit. The policy, not the enforcement mode, decides for later."""
    by_mode = enforcement is Mode.OBSERVE and (config.observe_by_mode or not config.observe)
    observe = by_mode or (config.observe and not config.observe_by_mode)
    config = replace(config, observe=observe, observe_by_mode=by_mode)
    if can_delay or observe:
        return config
    return replace(config, **_DELAY)
