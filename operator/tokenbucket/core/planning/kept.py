"""Keep the limits of policies of which this agent knows no valid version.

An agent that starts after a policy uses a newer part of the API rejects the policy. The limit that an earlier
run attached is the last valid version, as far as the kernel contains it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Mode, RejectedPolicy
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.attachment import HookPoint
from tokenbucket.core.planning.plan import Observed, Wanted


def kept_limits(
    rejected: Iterable[RejectedPolicy],
    pods: Iterable[Pod],
    wanted: Mapping[SlotKey, Wanted],
    observed: Observed,
    enforcement: Mode,
) -> dict[SlotKey, Wanted]:
    """Return the observed limits of rejected policies, where no other policy has a limit."""
    unknown = {(each.namespace, each.name) for each in rejected if not (each.last_valid or each.forbidden)}
    if not unknown:
        return {}
    running = {pod.id for pod in pods if not pod.ended}
    points: dict[int, set[HookPoint]] = defaultdict(set)
    if enforcement is not Mode.OFF:
        taken = {point for each in wanted.values() for point in each.points}
        for point in observed.filters.keys() - taken:
            points[observed.filters[point].slot].add(point)
    return {
        slot.owner.key: Wanted(slot, frozenset(points[index]), _delays(slot))
        for index, slot in observed.slots.items()
        if isinstance(subject := slot.owner.key.subject, PodId)
        and subject in running
        and (subject.namespace, slot.owner.policy) in unknown
        and slot.owner.key.limit not in wanted
    }


def _delays(slot: Slot) -> bool:
    return slot.config.max_delay_q > 0 and not slot.config.observe and not slot.owner.key.is_guard
