"""Reads the enforced limits from the kernel's state, with or without an agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tokenbucket.bpf.peers import Peer, Peers
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Meters, Slots, monotonic_ns
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits.slot import DeviceId, Slot
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.hook import End, Hook, hook_of
from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.namespaces import Namespace, own_namespace, reachable_namespaces
from tokenbucket.netlink.view import View


@dataclass(frozen=True, slots=True, order=True)
class AttachPoint:
    """A hook of an interface with a limit."""

    interface: str
    hook: Hook


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """A limit and the state of its bucket at ``now_ns``."""

    index: int
    slot: Slot
    places: tuple[AttachPoint, ...]
    meters: Meters
    stats: Stats
    now_ns: int
    peers: tuple[Peer, ...] = ()
    """The peers with an entry, if requested."""


def snapshot(pins: Pins, *, with_peers: bool = False) -> list[LimitSnapshot]:
    """Return the limits of all slots, ordered by subject and direction.

    ``with_peers`` reads the whole map of peers for each limit with perPeer.

    Raises:
        KernelError: with ENOENT if no maps are pinned.
        LoadError: a pinned map does not match this layout version.
    """
    with Slots(pins) as slots, Peers(pins) as peers:
        found = slots.read()
        places = _places(found, pins.program_ids())
        limits = [
            LimitSnapshot(
                index,
                slot,
                tuple(sorted(places.get(index, ()))),
                slots.meters(index),
                slots.stats(index),
                monotonic_ns(),
                tuple(peers.of(index, slots.peers_epoch(index)))
                if with_peers and slot.config.per_peer
                else (),
            )
            for index, slot in found.items()
        ]
    return sorted(
        limits, key=lambda limit: (str(limit.slot.owner.key.subject), limit.slot.owner.key.direction)
    )


def unmetered_packets(pins: Pins) -> int:
    """Return the packets that passed because their filter refers to no slot in use: a sign of a fault."""
    with Slots(pins) as slots:
        return slots.stats(0).unmetered_packets


def _places(slots: dict[int, Slot], programs: set[int]) -> dict[int, set[AttachPoint]]:
    """Return hooks by slot, in this namespace and in those of devices and of delayed pods."""
    subjects = [slot.owner.key.subject for slot in slots.values()]
    inodes = {subject.netns_inode for subject in subjects if isinstance(subject, DeviceId)}
    if any(_is_inside(slot) for slot in slots.values()):
        inodes |= {namespace.inode for namespace in reachable_namespaces()}
    places: dict[int, set[AttachPoint]] = {}
    for namespace in _namespaces(inodes):
        for index, place in _hooks(namespace, programs):
            places.setdefault(index, set()).add(place)
    return places


def _is_inside(slot: Slot) -> bool:
    key = slot.owner.key
    end, _ = hook_of(key.direction, waits=slot.config.max_delay_q > 0)
    return isinstance(key.subject, PodId) and end is End.POD


def _namespaces(inodes: set[int]) -> Iterator[Namespace]:
    own = own_namespace()
    yield own
    if inodes - {own.inode}:
        yield from (each for each in reachable_namespaces() if each.inode in inodes - {own.inode})


def _hooks(namespace: Namespace, programs: set[int]) -> Iterator[tuple[int, AttachPoint]]:
    try:
        with connect(namespace.path) as connection:
            view = View(connection)
            view.refresh()
    except KernelError:  # the namespace has ended
        return
    for ifindex, filters in view.filters.items():
        for ours in (each for each in filters.ours if each.prog_id in programs):
            yield ours.slot, AttachPoint(view.links[ifindex].name, ours.hook)
