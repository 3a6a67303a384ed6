"""Single actions of a plan: what the log says of them, and whose limit depends on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.hook import HookPoint, Interface
from tokenbucket.core.planning.plan import Attach, Detach, FreeSlot, WriteSlot

Action = WriteSlot | Attach | Detach | FreeSlot
WORDS = {WriteSlot: "limit set", Attach: "attached", Detach: "detached", FreeSlot: "limit lifted"}


def concerned(action: Action, keys: Mapping[HookPoint, SlotKey]) -> set[SlotKey]:
    """The limit that is not in force without this action. ``keys`` are of the points where limits belong."""
    match action:
        case WriteSlot(_, slot):
            return {slot.owner.key}
        case Attach(point):
            return {keys[point]}
    return set()


def details(action: Action, name_of: Callable[[Interface], str]) -> dict[str, object]:
    """What is worth knowing of it."""
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
