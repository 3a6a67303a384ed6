"""Log events of a plan's actions, and the limits that an action affects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.hook import HookPoint, Interface
from tokenbucket.core.planning.plan import Attach, Detach, FreeSlot, WriteSlot

SlotAction = WriteSlot | Attach | Detach | FreeSlot
LOG_EVENTS = {WriteSlot: "limit set", Attach: "attached", Detach: "detached", FreeSlot: "limit lifted"}


def affected_limits(action: SlotAction, keys: Mapping[HookPoint, SlotKey]) -> set[SlotKey]:
    """Return the limits that are not enforced without an action. ``keys`` are the limits by their points."""
    match action:
        case WriteSlot(_, slot):
            return {slot.owner.key}
        case Attach(point):
            return {keys[point]}
    return set()


def log_fields(action: SlotAction, name_of: Callable[[Interface], str]) -> dict[str, object]:
    """Return the fields of an action's log line."""
    match action:
        case WriteSlot(index, slot, fresh):
            rates = {"bits_per_s": slot.config.bits_per_s, "packets_per_s": slot.config.packets_per_s}
            return {
                "limit": slot.owner.key,
                "policy": slot.owner.policy,
                "slot": index,
                "new": fresh,
                "observes": slot.config.observe,
            } | rates
        case Attach(point, index):
            return {"interface": name_of(point.interface), "hook": point.hook, "slot": index}
        case Detach(point):
            return {"interface": name_of(point.interface), "hook": point.hook}
        case FreeSlot(index):
            return {"slot": index}
