"""Reads the enforced limits from the kernel's state, with or without an agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from tokenbucket.bpf.peers import Peer, Peers
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Meters, Slots, monotonic_ns
from tokenbucket.bpf.tcx import Tcx
from tokenbucket.core.limits.slot import DeviceId, Slot
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.attachment import Hook, Mechanism, attachment_name
from tokenbucket.errors import KernelError
from tokenbucket.netlink.connection import connect
from tokenbucket.netlink.filters import Filter
from tokenbucket.netlink.links import read_links
from tokenbucket.netlink.namespaces import Namespace, own_namespace, reachable_namespaces
from tokenbucket.node.attachments import Attachments


@dataclass(frozen=True, slots=True, order=True)
class AttachPoint:
    """A hook of an interface with a limit."""

    interface: str
    hook: Hook
    mechanism: Mechanism = Mechanism.CLSACT
    in_pod: bool = False
    """Whether the interface is the pod's own."""

    def __str__(self) -> str:
        return attachment_name(self.mechanism, self.hook, in_pod=self.in_pod)


@dataclass(frozen=True, slots=True)
class GuardSnapshot:
    """The guard of a limit: its slot, and what it dropped."""

    index: int
    slot: Slot
    places: tuple[AttachPoint, ...]
    stats: Stats


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
    guard: GuardSnapshot | None = None


def snapshot(pins: Pins, *, with_peers: bool = False) -> list[LimitSnapshot]:
    """Return the limits of all slots with their guards, ordered by subject and direction.

    ``with_peers`` reads the whole map of peers for each limit with perPeer.

    Raises:
        KernelError: with ENOENT if no maps are pinned.
        LoadError: a pinned map does not match this layout version.
    """
    with Slots(pins) as slots, Peers(pins) as peers:
        found = slots.read()
        places = _places(found, pins)
        guards = {
            slot.owner.key.limit: GuardSnapshot(
                index, slot, tuple(sorted(places.get(index, ()))), slots.stats(index)
            )
            for index, slot in found.items()
            if slot.owner.key.is_guard
        }
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
                guards.get(slot.owner.key),
            )
            for index, slot in found.items()
            if not slot.owner.key.is_guard
        ]
    return sorted(
        limits, key=lambda limit: (str(limit.slot.owner.key.subject), limit.slot.owner.key.direction)
    )


def unmetered_packets(pins: Pins) -> int:
    """Return the packets that passed because their filter refers to no slot in use: a sign of a fault."""
    with Slots(pins) as slots:
        return slots.stats(0).unmetered_packets


def _places(slots: dict[int, Slot], pins: Pins) -> dict[int, set[AttachPoint]]:
    """Return hooks by slot: on the node, in the namespaces of devices, and inside pods."""
    tcx, programs, own = Tcx(pins), pins.program_ids(), own_namespace()
    subjects = [slot.owner.key.subject for slot in slots.values()]
    devices = {subject.netns_inode for subject in subjects if isinstance(subject, DeviceId)}
    places: dict[int, set[AttachPoint]] = {}
    others = {namespace.inode: namespace for namespace in reachable_namespaces()}
    others.pop(own.inode, None)
    likely = [others.pop(inode) for inode in devices | tcx.namespaces() if inode in others]
    # Entering all namespaces takes a second with hundreds of pods. A filter of clsact inside one has no pin,
    # but if the kernel has tcx, few limits have one beside a hook on the node.
    for namespace in chain([own], likely, others.values()):
        if namespace.inode in others and tcx.is_supported and places.keys() >= slots.keys():
            break
        for ours, name in _attachments(namespace, tcx):
            if ours.prog_id in programs:
                in_pod = namespace.inode not in {own.inode, *devices}
                place = AttachPoint(name, ours.hook, ours.mechanism, in_pod)
                places.setdefault(ours.slot, set()).add(place)
    return places


def _attachments(namespace: Namespace, tcx: Tcx) -> Iterator[tuple[Filter, str]]:
    """Yield the attachments in a namespace, with the names of their interfaces."""
    try:
        with connect(namespace.path) as connection:
            links = read_links(connection)
            found = Attachments(connection, tcx, namespace.inode).read_all(links)
    except KernelError:  # the namespace has ended, or this process may not enter it
        return
    for ifindex, programs in found.items():
        yield from ((ours, links[ifindex].name) for ours in programs.ours)
