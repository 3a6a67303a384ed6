"""Log lines of the actions of a plan."""

from __future__ import annotations

from collections.abc import Callable

from tokenbucket.core.planning.attachment import HookPoint, Interface
from tokenbucket.core.planning.plan import Attach, Detach, FreeSlot, WriteSlot

SlotAction = WriteSlot | Attach | Detach | FreeSlot
_LOG_EVENTS = {WriteSlot: "limit set", Attach: "attached", Detach: "detached", FreeSlot: "limit removed"}


def log_event(action: SlotAction) -> str:
    """Return the event of an action."""
    is_guard = isinstance(action, WriteSlot) and action.slot.owner.key.is_guard
    return "guard set" if is_guard else _LOG_EVENTS[type(action)]


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
        case Attach(point, index, _):
            return _place(point, name_of) | {"slot": index}
        case Detach(point):
            return _place(point, name_of)
        case FreeSlot(index):
            return {"slot": index}


def _place(point: HookPoint, name_of: Callable[[Interface], str]) -> dict[str, object]:
    name = name_of(point.interface)
    return {"interface": name, "hook": point.hook, "mechanism": point.mechanism}
