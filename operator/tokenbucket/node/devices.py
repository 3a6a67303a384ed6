"""Limits of devices: any interface, attached by command instead of by policy."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.bucket import Bucket
from tokenbucket.core.limits.slot import NO_SLOT, DeviceId, Owner, Slot, SlotKey, config_of
from tokenbucket.core.planning.attachment import (
    IFB,
    AttachMode,
    DataPlane,
    HookPoint,
    Interface,
    Mechanism,
    device_hook,
)
from tokenbucket.core.planning.plan import FIRST_SLOT
from tokenbucket.errors import KernelError, TokenBucketError
from tokenbucket.netlink.connection import Connection, connect
from tokenbucket.netlink.filters import Filters, LinkFilters
from tokenbucket.netlink.fq import read_roots, remove_fq
from tokenbucket.netlink.ifb import delete_ifb
from tokenbucket.netlink.links import Link, find_link, read_link, read_links
from tokenbucket.netlink.namespaces import (
    Namespace,
    ensure_number,
    namespace_at,
    own_namespace,
    reachable_namespaces,
)
from tokenbucket.node.attachments import Attachments, is_shared
from tokenbucket.node.device_slots import free_gone, slots_at, slots_without_filter

NAMED_NAMESPACES = Path("/run/netns")


class TakenError(TokenBucketError):
    """The hook has a limit of a pod or of another device, or all slots are in use."""


@dataclass(frozen=True, slots=True)
class Device:
    """An interface in a network namespace."""

    namespace: Namespace
    name: str

    def key(self, direction: Direction) -> SlotKey:
        """Return the identity of the device's limit."""
        return SlotKey(DeviceId(self.namespace.inode, self.name), direction)

    def identity(self, link: Link) -> DeviceId:
        """Return the identity of the device's interface. Gives its namespace a number. Raises KernelError."""
        own = own_namespace()
        if self.namespace.inode == own.inode:
            return DeviceId(self.namespace.inode, self.name, link.ifindex)
        with connect() as connection:
            number = ensure_number(connection, self.namespace)
        known = None if number is None else (own.inode, number)
        return DeviceId(self.namespace.inode, self.name, link.ifindex, known)


def device(name: str, netns: str | None) -> Device:
    """Return the device; ``netns`` is a name in /run/netns or a path. Raises KernelError."""
    if netns is None:
        return Device(own_namespace(), name)
    return Device(namespace_at(Path(netns) if "/" in netns else NAMED_NAMESPACES / netns), name)


class RenamedError(TokenBucketError):
    """The interface that had the name has another one, and keeps its limit."""


def attach(
    pins: Pins, target: Device, direction: Direction, bucket: Bucket, mode: AttachMode = AttachMode.AUTO
) -> None:
    """Limit an interface, or change its limit and keep its tokens.

    Raises:
        TakenError: the hook has another limit, or all slots are in use. Nothing is changed.
        KernelError: the interface does not exist, or the kernel rejects a request.
        LoadError: the program cannot be loaded.
        UnsupportedError: a foreign filter excludes the filter. The slot is free again.
    """
    build = ensure_loaded(pins)
    hook = device_hook(direction)
    with (
        Locks.of(pins).writing(),
        connect(target.namespace.path) as connection,
        Slots(pins) as slots,
        closing(Programs(pins, build)) as programs,
    ):
        link = _link(connection, target.name)
        subject = target.identity(link)
        slot = Slot(Owner(SlotKey(subject, direction)), config_of(bucket, direction, node_reserve=False))
        tcx = Tcx(pins)
        attachments = Attachments(connection, tcx, target.namespace.inode)
        found = attachments.read(link.ifindex)
        with connect() as own:
            in_use = free_gone(own, slots, tcx)
        named = slots_at(found.ours, in_use, {hook}) or slots_without_filter(
            subject, direction, in_use, _named_in(connection, attachments)
        )
        index, fresh = _slot_for(slot.owner.key, named, in_use, slots.count)
        _reject_if_taken(found, slots, link, direction, index)
        data_plane = DataPlane(mode, tcx.is_supported, is_shared=is_shared(found))
        interface = Interface(link.ifindex)
        point = HookPoint(interface, hook, data_plane.mechanism(interface))
        tcx.stubs.dispatch.point_to(programs.fds, replace=False)
        slots.write(index, slot, fresh=fresh)
        try:
            attachments.attach(point, programs.fds[hook], index)
            _detach_others(attachments, found, point)
        except TokenBucketError:
            if fresh:
                slots.free(index)
            raise


def detach(pins: Pins, target: Device, directions: Iterable[Direction]) -> bool:
    """Remove the limits of an interface. Return whether there were any.

    A slot under the name is freed only if no filter in the namespace names it. An interface that was moved to
    another namespace took its tcx program with it, which is detached.

    Raises:
        RenamedError: an interface with a limit had the name, and has another one.
        KernelError: the kernel rejects a request.
    """
    hooks = {device_hook(direction) for direction in directions}
    keys = {target.key(direction) for direction in directions}
    with Locks.of(pins).writing(), Slots(pins) as slots, connect(target.namespace.path) as connection:
        in_use, tcx = slots.read(), Tcx(pins)
        attachments = Attachments(connection, tcx, target.namespace.inode)
        link = find_link(connection, target.name)
        named = attachments.read(link.ifindex).ours if link else ()
        mine = slots_at(named, in_use, hooks)
        others = {
            ours.hook
            for ours in named
            if slots.limits_device_in_another_layout(ours.slot, ours.prog_id) and ours.hook in hooks
        }
        there = {ours.hook for ours in named if ours.slot in mine and ours.hook in hooks} | others
        for hook, mechanism in product(there, (Mechanism.TCX, Mechanism.CLSACT)):
            if link:
                attachments.detach(link.ifindex, hook, mechanism)
        elsewhere = _named_in(connection, attachments)
        under_name = {index for index, slot in in_use.items() if slot.owner.key in keys}
        for index in (mine | under_name) - elsewhere.keys():
            tcx.detach_slot(index)
            slots.free(index)
        if not mine and (renamed := sorted(elsewhere[index] for index in under_name & elsewhere.keys())):
            raise RenamedError(
                f"{target.name}: its limit is on {renamed[0]}, the new name of the interface; "
                f"run 'tokenbucket detach --dev {renamed[0]}'"
            )
    return bool(there or under_name - elsewhere.keys())


def _named_in(connection: Connection, attachments: Attachments) -> dict[int, str]:
    """Return the interfaces of a namespace by the slots that their filters name."""
    links = read_links(connection)
    found = attachments.read_all(links)
    return {ours.slot: links[ifindex].name for ifindex, each in found.items() for ours in each.ours}


def detach_all(pins: Pins, stopping: Callable[[], bool] = lambda: False) -> int:
    """Remove all pins, filters and queues of tokenbucket. Return the number of removed filters.

    In other namespaces, only filters that run a program of these pins are removed: other filters belong to
    an agent with other pins. A namespace that this process may not enter is skipped: it has no filters.

    Raises:
        LockedError: an agent is running, and would attach the filters again.
        InterruptedWaitError: another process writes, and ``stopping`` returned that this one must end.
        KernelError: the kernel rejects a request.
    """
    locks = Locks.of(pins, stopping)
    with locks.only_agent(), locks.writing():
        own, programs = own_namespace(), pins.program_ids()
        removed = Tcx(pins).detach_all()
        with connect() as connection:
            removed += _detach_all_by(connection, None)
        others = (each for each in reachable_namespaces() if each.inode != own.inode)
        removed += sum(_detach_all_in(each, programs) for each in others)
        pins.remove()
    return removed


def _detach_all_in(namespace: Namespace, programs: set[int]) -> int:
    try:
        with connect(namespace.path) as connection:
            removed = _detach_all_by(connection, programs)
            delete_ifb(connection, IFB)
            return removed
    except KernelError as error:
        if error.errno in {
            errno.ENOENT,
            errno.EINVAL,
            errno.EPERM,
        }:  # the namespace has ended, or entering is not permitted
            return 0
        raise


def _detach_all_by(connection: Connection, programs: set[int] | None) -> int:
    """Remove the filters of these programs, or with ``None`` all of tokenbucket, even without pins."""
    filters = Filters(connection)
    found = filters.read_all()
    ours = [
        each
        for of_link in found.values()
        for each in of_link.ours
        if programs is None or each.prog_id in programs
    ]
    for each in ours:
        filters.detach(each.ifindex, each.hook)
    for ifindex in found:
        if any(each.ifindex == ifindex for each in ours) or _is_of_a_pod(connection, ifindex):
            filters.remove_empty_clsact(ifindex)
    for ifindex in read_roots(connection):
        remove_fq(connection, ifindex, at_once=True)
    return len(ours)


def _is_of_a_pod(connection: Connection, ifindex: int) -> bool:
    """Return whether an interface leads to another namespace: it may have had a limit before."""
    link = read_link(connection, ifindex)
    return link is not None and link.nsid is not None


def _link(connection: Connection, name: str) -> Link:
    link = find_link(connection, name)
    if link is None:
        raise KernelError("find interface", name, errno.ENODEV)
    return link


def _slot_for(key: SlotKey, named: set[int], in_use: dict[int, Slot], count: int) -> tuple[int, bool]:
    """Return the slot of a limit, and whether it is a new one.

    ``named`` are the slots that the interface has at the hook, or had.
    """
    if named:
        return min(named), False
    for index in range(FIRST_SLOT, count):
        if index not in in_use:
            return index, True
    raise TakenError(f"{key}: all {count} slots are in use; remove another limit first")


def _detach_others(attachments: Attachments, before: LinkFilters, point: HookPoint) -> None:
    """Detach the program at the hook that another mechanism than the new one has attached."""
    for ours in before.ours:
        if ours.hook is point.hook and ours.mechanism is not point.mechanism:
            attachments.detach(ours.ifindex, ours.hook, ours.mechanism)


def _reject_if_taken(found: LinkFilters, slots: Slots, link: Link, direction: Direction, index: int) -> None:
    for ours in found.ours:
        slot = slots.resolve_slot(ours.slot, ours.prog_id)
        if ours.hook is device_hook(direction) and slot not in {index, NO_SLOT}:
            raise TakenError(
                f"{link.name} {direction}: already has a limit, in slot {ours.slot}; see 'tokenbucket status'"
            )
