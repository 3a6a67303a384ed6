"""Keep the limits of policies of which this agent knows no valid version.

An agent that starts after a policy uses a newer part of the API rejects the policy. The limit that an earlier
run attached is the last valid version, as far as the kernel contains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tokenbucket.core.api.annotations import NAME as OF_ANNOTATIONS
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Mode, RejectedPolicy
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.attachment import HookPoint
from tokenbucket.core.planning.plan import Observed, Wanted


def with_kept_limits(
    wanted: Mapping[SlotKey, Wanted],
    rejected: Iterable[RejectedPolicy],
    pods: Iterable[Pod],
    observed: Observed,
    enforcement: Mode,
) -> dict[SlotKey, Wanted]:
    """Return the wanted limits, and the observed limits of rejected policies where no policy has a limit."""
    slots = _slots(wanted, rejected, {pod.id for pod in pods if not pod.ended}, observed)
    limits = {slot.owner.key.limit for slot in slots.values()}
    others = {key: each for key, each in wanted.items() if key.limit not in limits}
    taken = {point for each in others.values() for point in each.points}
    points: dict[int, set[HookPoint]] = defaultdict(set)
    for point in observed.filters.keys() - taken if enforcement is not Mode.OFF else ():
        points[observed.filters[point].slot].add(point)
    kept = {
        slot.owner.key: _kept(slot, points[index], observed, enforcement) for index, slot in slots.items()
    }
    return others | kept


def _slots(
    wanted: Mapping[SlotKey, Wanted],
    rejected: Iterable[RejectedPolicy],
    running: set[PodId],
    observed: Observed,
) -> dict[int, Slot]:
    """Return the slots of rejected policies, by index. A recreated policy begins at generation 1."""
    unknown = {
        (each.namespace, each.name): each.generation
        for each in rejected
        if not (each.last_valid or each.forbidden)
    }
    of_policies = {key.limit for key, each in wanted.items() if each.slot.owner.policy != OF_ANNOTATIONS}
    return {
        index: slot
        for index, slot in observed.slots.items()
        if isinstance(subject := slot.owner.key.subject, PodId)
        and subject in running
        and slot.owner.generation <= unknown.get((subject.namespace, slot.owner.policy), -1)
        and slot.owner.key.limit not in of_policies
    }


def _kept(slot: Slot, points: set[HookPoint], observed: Observed, enforcement: Mode) -> Wanted:
    """Return a limit as the kernel contains it. It delays packets only if its queues exist already."""
    config = replace(slot.config, observe=slot.config.observe or enforcement is Mode.OBSERVE)
    delays = config.max_delay_q > 0 and not config.observe and not slot.owner.key.is_guard
    kept = Wanted(replace(slot, config=config), frozenset(points), delays)
    if delays and kept.queues <= observed.queues:
        return kept
    if delays:
        config = replace(config, max_delay_q=0, longest_backlog_q=0, pacing=False)
    in_place = frozenset(point for point in points if not point.interface.is_ifb)
    return Wanted(replace(slot, config=config), in_place)
