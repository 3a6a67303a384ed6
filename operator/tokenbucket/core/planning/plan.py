"""Compute the actions that change the observed state into the desired state.

The order of actions leaves no gap: add queues before slots delay packets, write slots before filters refer to
them, detach filters before their slots become free, and remove queues last, when no new packets enter them.
The plan covers slots of pods only. Slots of devices, which were attached manually, stay unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits.slot import NO_SLOT, Slot, SlotKey
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface

FIRST_SLOT = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """One desired limit, and the hooks of its filters."""

    slot: Slot
    points: AbstractSet[HookPoint]
    delays: bool = False
    """Whether packets are queued, so that the interface of each egress hook needs tokenbucket's queue."""

    def redirects(self, point: HookPoint) -> bool:
        """Return whether packets of a hook go to the ifb device: behind an ingress hook is no queue."""
        return self.delays and point.hook is Hook.INGRESS

    @property
    def queues(self) -> set[Interface]:
        """The interfaces that need tokenbucket's queue."""
        return {point.interface for point in self.points if self.delays and point.hook is Hook.EGRESS}


@dataclass(frozen=True, slots=True)
class Attached:
    """An attached filter of tokenbucket. ``current`` is whether it runs this build of the program."""

    slot: int
    current: bool
    redirects: bool = False
    """Whether it redirects packets to the ifb device."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The kernel's state that belongs to tokenbucket."""

    slots: Mapping[int, Slot]
    filters: Mapping[HookPoint, Attached]
    slot_count: int
    queues: AbstractSet[Interface] = frozenset()
    """Interfaces that have tokenbucket's queue."""
    remnants: AbstractSet[Interface] = frozenset()
    """ifb devices of tokenbucket, also those without a queue."""


@dataclass(frozen=True, slots=True)
class AddQueue:
    """Make tokenbucket's queue the root qdisc of an interface."""

    interface: Interface


@dataclass(frozen=True, slots=True)
class RemoveQueue:
    """Remove tokenbucket's queue, once it is empty."""

    interface: Interface


@dataclass(frozen=True, slots=True)
class WriteSlot:
    """Write configuration and owner of a slot. If ``fresh``, fill the bucket and reset the counters."""

    index: int
    slot: Slot
    fresh: bool


@dataclass(frozen=True, slots=True)
class Attach:
    """Attach tokenbucket's filter, or replace it in place."""

    point: HookPoint
    slot: int
    redirects: bool = False


@dataclass(frozen=True, slots=True)
class Detach:
    """Remove tokenbucket's filter."""

    point: HookPoint


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """Make a slot available for other limits."""

    index: int


Action = AddQueue | WriteSlot | Attach | Detach | FreeSlot | RemoveQueue


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order of their execution, and the limits without a free slot."""

    actions: tuple[Action, ...]
    without_slot: tuple[SlotKey, ...] = ()


def plan(desired: Mapping[SlotKey, Wanted], observed: Observed) -> Plan:
    """Return the actions that produce the desired state. A second plan after them is empty."""
    placed, without_slot = _place(desired, observed)
    queues = {interface for key in placed for interface in desired[key].queues}
    present = observed.queues | observed.remnants
    return Plan(
        (
            *(AddQueue(interface) for interface in sorted(queues - observed.queues)),
            *_writes(desired, placed, observed),
            *_attachments(desired, placed, observed),
            *_detachments(desired, placed, observed),
            *_releases(placed, observed),
            *(RemoveQueue(interface) for interface in sorted(present - queues)),
        ),
        tuple(without_slot),
    )


def _place(desired: Mapping[SlotKey, Wanted], observed: Observed) -> tuple[dict[SlotKey, int], list[SlotKey]]:
    """Return the slot of each limit and guard: its current slot, or the lowest free slot.

    Limits come first. If one finds no free slot, a guard gives up its own, which is free for the next plan.
    """
    has: dict[SlotKey, int] = {}
    for index, slot in sorted(observed.slots.items()):
        has.setdefault(slot.owner.key, index)
    free = (index for index in range(FIRST_SLOT, observed.slot_count) if index not in observed.slots)
    placed = {key: has[key] for key in desired if key in has}
    without_slot = []
    for key in sorted(desired.keys() - placed.keys(), key=_guards_last):
        index = next(free, NO_SLOT)
        if index == NO_SLOT:
            without_slot.append(key)
        else:
            placed[key] = index
    lacking = sum(not key.is_guard for key in without_slot)
    given_up = [key for key in placed if key.is_guard][:lacking]
    kept = {key: index for key, index in placed.items() if key not in given_up}
    return kept, without_slot + given_up


def _guards_last(key: SlotKey) -> tuple[bool, str]:
    return key.is_guard, str(key)


def _writes(
    desired: Mapping[SlotKey, Wanted], placed: Mapping[SlotKey, int], observed: Observed
) -> Iterator[Action]:
    # A guard first: it must not drop packets that a limit admits at a higher rate.
    for key in sorted(placed, key=lambda key: not key.is_guard):
        index = placed[key]
        there = observed.slots.get(index)
        if there != desired[key].slot:
            yield WriteSlot(index, desired[key].slot, fresh=there is None)


def _attachments(
    desired: Mapping[SlotKey, Wanted], placed: Mapping[SlotKey, int], observed: Observed
) -> Iterator[Action]:
    for key, index in placed.items():
        wanted = desired[key]
        for point in sorted(wanted.points, key=_upstream_last):
            redirects = wanted.redirects(point)
            if observed.filters.get(point) != Attached(index, current=True, redirects=redirects):
                yield Attach(point, index, redirects)


def _detachments(
    desired: Mapping[SlotKey, Wanted], placed: Mapping[SlotKey, int], observed: Observed
) -> Iterator[Action]:
    wanted = {point for key in placed for point in desired[key].points}
    for point in sorted(observed.filters, key=_upstream_last, reverse=True):
        attached = observed.filters[point]
        if point not in wanted and _is_of_a_pod_or_nobody(observed.slots.get(attached.slot)):
            yield Detach(point)


def _upstream_last(point: HookPoint) -> tuple[bool, HookPoint]:
    """Sort ingress hooks after the egress hook of the ifb device to which they redirect packets."""
    return point.hook is Hook.INGRESS, point


def _releases(placed: Mapping[SlotKey, int], observed: Observed) -> Iterator[Action]:
    kept = set(placed.values())
    for index, slot in sorted(observed.slots.items()):
        if index not in kept and _is_of_a_pod_or_nobody(slot):
            yield FreeSlot(index)


def _is_of_a_pod_or_nobody(slot: Slot | None) -> bool:
    return slot is None or isinstance(slot.owner.key.subject, PodId)
