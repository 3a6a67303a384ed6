"""Slots of devices: which of them an interface has, and which have lost their interface.

A filter on an interface is the proof that the interface has a slot. Names prove nothing: an interface can be
renamed, recreated or moved. A slot is free for others only if no filter can name it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import DeviceId, Slot, SlotKey
from tokenbucket.core.planning.attachment import Hook
from tokenbucket.netlink.connection import Connection
from tokenbucket.netlink.filters import Filter
from tokenbucket.netlink.links import read_link, read_traffic
from tokenbucket.netlink.namespaces import Namespace, numbered_namespaces, own_namespace


def slots_at(found: Iterable[Filter], slots: Mapping[int, Slot], hooks: Iterable[Hook]) -> set[int]:
    """Return the slots of devices that filters at these hooks name."""
    hooks = set(hooks)
    return {
        ours.slot
        for ours in found
        if ours.hook in hooks
        and ours.slot in slots
        and isinstance(slots[ours.slot].owner.key.subject, DeviceId)
    }


def slots_without_filter(
    device: DeviceId, direction: Direction, slots: Mapping[int, Slot], named: Container[int]
) -> set[int]:
    """Return the slots of a device whose filter others removed. ``named`` are slots that filters name."""
    return {
        index
        for index, slot in slots.items()
        if index not in named
        and slot.owner.key == SlotKey(device, direction)
        and isinstance(slot.owner.key.subject, DeviceId)
        and slot.owner.key.subject.ifindex in {0, device.ifindex}
    }


def free_gone(connection: Connection, slots: Slots, tcx: Tcx) -> dict[int, Slot]:
    """Free the slots of devices that no longer exist, as far as this can be known. Return the others.

    ``connection`` is one to the caller's namespace. A namespace without a known number is not judged: it may
    exist without a name or a process that the caller sees.

    Raises:
        KernelError: the kernel rejects a request.
    """
    in_use = slots.read()
    for index in gone_devices(connection, in_use):
        tcx.detach_slot(index)
        slots.free(index)
        del in_use[index]
    return in_use


def gone_devices(connection: Connection, slots: Mapping[int, Slot]) -> list[int]:
    """Return the slots of devices that no longer exist, as far as this can be known. Raises KernelError."""
    devices = {
        index: slot.owner.key.subject
        for index, slot in slots.items()
        if isinstance(slot.owner.key.subject, DeviceId) and slot.owner.key.subject.ifindex
    }
    own = own_namespace().inode
    elsewhere = any(device.netns_inode != own for device in devices.values())
    numbered = numbered_namespaces(connection) if elsewhere else {}
    return [index for index, device in devices.items() if _is_gone(connection, device, own, numbered)]


def _is_gone(connection: Connection, device: DeviceId, own: int, numbered: Mapping[int, Namespace]) -> bool:
    if device.netns_inode == own:
        return read_link(connection, device.ifindex) is None
    if device.number is None or device.number[0] != own:
        return False
    number = device.number[1]
    if number in numbered and numbered[number].inode != device.netns_inode:
        return True  # another namespace got the number
    return read_traffic(connection, number, device.ifindex) is None
