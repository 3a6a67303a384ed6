"""Verification that attached limits run: which programs run before tokenbucket's, and which counters move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import ProgramNames
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.attachment import Hook, HookPoint, Interface
from tokenbucket.core.planning.bypass import Amount, BypassWatch, Counted
from tokenbucket.core.planning.foreign import ForeignProgram, list_programs
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.netlink.filters import Filter
from tokenbucket.netlink.links import Traffic, read_traffic
from tokenbucket.node.foreign_programs import describe, programs_at, programs_to_pods, xdp_at
from tokenbucket.node.view import View

_PAST = {
    Direction.INGRESS: "pod: most of its packets arrive without passing tokenbucket's filter",
    Direction.EGRESS: "pod: most of its packets leave without passing tokenbucket's filter",
}


@dataclass(slots=True)
class Verifier:
    """Knows which limits of pods are attached and do not run. Belongs to the agent's thread."""

    slots: Slots
    names: ProgramNames
    bypass: BypassWatch = field(default_factory=BypassWatch)
    in_use: Mapping[int, Slot] = field(default_factory=dict)
    """The slots in use at the last check."""
    _ahead: Mapping[SlotKey, frozenset[ForeignProgram]] = field(default_factory=dict)
    """Programs that run before tokenbucket's, by limit."""
    _confirmed: frozenset[SlotKey] = frozenset()
    """Limits that the same programs preceded in two checks: traffic had time to prove that the limits run."""
    _redirecting: frozenset[ForeignProgram] = frozenset()
    """Programs at ingress hooks of the node, which can redirect packets into pods."""
    _points: Mapping[SlotKey, AbstractSet[HookPoint]] = field(default_factory=dict)
    """Where limits were attached at the last check."""
    _suspects: dict[SlotKey, frozenset[ForeignProgram]] = field(default_factory=dict)
    """Programs that were there when a limit was found to be bypassed, so that its message does not change."""

    @property
    def not_running(self) -> frozenset[SlotKey]:
        """Limits that are attached and do not run, as far as is known."""
        return self._not_first - self._guarded

    @property
    def _not_first(self) -> frozenset[SlotKey]:
        """Limits and guards whose program most packets do not reach, as far as is known."""
        return self.bypass.bypassed | self._shadowed

    @property
    def _guarded(self) -> frozenset[SlotKey]:
        """Limits whose guard runs on as many interfaces: it enforces the rate in their place."""
        running = (key for key in self._points if key.is_guard and key not in self._not_first)
        count = {key: len(points) for key, points in self._points.items()}
        return frozenset(key.limit for key in running if count[key] >= count.get(key.limit, 0))

    @property
    def _shadowed(self) -> frozenset[SlotKey]:
        """Limits that other programs precede, unless the counters show that these programs let packets on."""
        return self._confirmed - self.bypass.running

    def check(self, view: View, *, everything: bool = False) -> bool:
        """Read programs and, if there are any of others or ``everything`` is asked for, counters.

        Return whether programs, or the verdict on any limit, changed. Raises KernelError.
        """
        before = self._verdicts()
        changed = view.look_for_programs()
        view.refresh()
        attached = list(self._attached(view))
        self._forget_moved(attached)
        self._read_programs(view, attached)
        if everything or self._ahead or self._redirecting or self.bypass.bypassed or self.suspects:
            self.bypass.compare(self._count(view, attached))
        self._suspects = {
            key: self._suspects.get(key, self._suspects_of(key)) for key in self.bypass.bypassed
        }
        return changed or self._verdicts() != before

    @property
    def suspects(self) -> frozenset[SlotKey]:
        """Limits that the next comparison of counters decides about."""
        return self.bypass.suspected - self.bypass.bypassed

    @property
    def bypassed_directions(self) -> AbstractSet[Direction]:
        """Directions in which counters show that packets do not pass host-side hooks of limits."""
        return {
            key.direction
            for key in self.bypass.bypassed
            if any(not point.interface.namespace for point in self._points.get(key, ()))
        }

    def foreign_programs(self, view: View) -> frozenset[ForeignProgram]:
        """Return the programs of others at the interfaces of the node that lead to pods."""
        return programs_to_pods(view, self.names)

    def forget(self, key: SlotKey) -> None:
        """Start again with the counters of a limit that is attached now."""
        self.bypass.forget(key)

    def deviations(self, keys: AbstractSet[SlotKey]) -> list[Deviation]:
        """Return the reason for each of these limits that does not run."""
        return [self._deviation(key) for key in sorted(keys & self._not_first, key=str)]

    def _verdicts(self) -> object:
        return self.bypass.bypassed, {key: self._ahead[key] for key in self._shadowed}

    def _deviation(self, key: SlotKey) -> Deviation:
        found = self._fault(key)
        if key in self._guarded:
            text = f"{found.message}; excess packets are dropped on the node"
            return Deviation(key, Reason.BYPASSED_IN_POD, text)
        return found

    def _fault(self, key: SlotKey) -> Deviation:
        if key in self._shadowed:
            programs = list_programs(self._ahead[key])
            text = f"{programs} runs before tokenbucket's program; detach it, or see --attach"
            return Deviation(key, Reason.SHADOWED, text)
        suspects = self._suspects[key]
        cause = f"; programs that can redirect or end them: {list_programs(suspects)}" if suspects else ""
        return Deviation(key, Reason.BYPASSED, _PAST[key.direction] + cause)

    def _suspects_of(self, key: SlotKey) -> frozenset[ForeignProgram]:
        ahead = self._ahead.get(key, frozenset())
        return ahead or (self._redirecting if key.direction is Direction.INGRESS else ahead)

    def _forget_moved(self, attached: list[tuple[int, Filter, Slot]]) -> None:
        """Forget the counters of limits that were attached elsewhere before."""
        points: dict[SlotKey, set[HookPoint]] = defaultdict(set)
        for inode, ours, slot in attached:
            points[slot.owner.key].add(HookPoint(Interface(ours.ifindex, inode), ours.hook, ours.mechanism))
        for key in points.keys() & self._points.keys():
            if points[key] != self._points[key]:
                self.bypass.reset(key)
        self._points = dict(points)

    def _attached(self, view: View) -> Iterator[tuple[int, Filter, Slot]]:
        """Yield the filters of pods' limits, with the inode of their namespace, 0 for the node's."""
        slots = self.in_use = self.slots.read()
        for inode, filters, _ in view.all_namespaces():
            for found in filters.values():
                for ours in found.ours:
                    slot = slots.get(self.slots.resolve_slot(ours.slot, ours.prog_id))
                    if slot and isinstance(slot.owner.key.subject, PodId):
                        yield inode, ours, slot

    def _read_programs(self, view: View, attached: list[tuple[int, Filter, Slot]]) -> None:
        of_node = frozenset().union(*(programs_at(view, self.names, link) for link in view.links.values()))
        ahead: dict[SlotKey, frozenset[ForeignProgram]] = defaultdict(frozenset)
        for inode, ours, slot in attached:
            ahead[slot.owner.key] |= self._programs_before(view, inode, ours)
        now = {key: programs for key, programs in ahead.items() if programs}
        self._confirmed = frozenset(key for key in now if now[key] == self._ahead.get(key))
        for key in now.keys() - self._confirmed:
            self.bypass.forget(key)
        self._ahead = now
        self._redirecting = frozenset(
            each for each in of_node if each.hook is Hook.INGRESS and each.program_id
        )

    def _programs_before(self, view: View, inode: int, ours: Filter) -> frozenset[ForeignProgram]:
        interface = Interface(ours.ifindex, inode)
        name = view.name_of(interface)
        programs = frozenset(
            describe(name, each)
            for each in view.filters_at(interface).foreign
            if each.hook is ours.hook and each.runs_first
        )
        if inode or ours.hook is Hook.EGRESS or ours.ifindex not in view.links:
            return programs
        return programs | xdp_at(self.names, view.links[ours.ifindex])

    def _count(self, view: View, attached: list[tuple[int, Filter, Slot]]) -> dict[SlotKey, Counted]:
        counted: dict[SlotKey, Counted] = {}
        for inode, ours, slot in attached:
            if Interface(ours.ifindex, inode).is_ifb:  # the packets were counted at their first interface
                continue
            key = slot.owner.key
            index = self.slots.resolve_slot(ours.slot, ours.prog_id)
            before = counted.get(key) or Counted(Amount(0), self._seen(index))
            traffic = _read_pod_side(view, inode, ours)
            if traffic is None:
                continue
            crossed = before.crossed.plus(_in_direction(traffic, key.direction))
            seen_before = before.seen if before.seen_before is None else before.seen_before
            counted[key] = Counted(crossed, self._seen(index), seen_before)
        return counted

    def _seen(self, index: int) -> Amount:
        stats = self.slots.stats(index)
        return Amount(stats.seen_packets, stats.seen_bytes)


def _in_direction(traffic: Traffic, direction: Direction) -> Amount:
    if direction is Direction.INGRESS:
        return Amount(traffic.received_packets, traffic.received_bytes)
    return Amount(traffic.sent_packets, traffic.sent_bytes)


def _read_pod_side(view: View, inode: int, ours: Filter) -> Traffic | None:
    """Read the counters of the pod's own interface; ``None`` if it is gone or not in another namespace."""
    if inode:
        nsid, ifindex = view.namespace_behind(Interface(ours.ifindex, inode)), ours.ifindex
    else:
        link = view.links.get(ours.ifindex)
        nsid, ifindex = (link.nsid, link.peer_ifindex or 0) if link else (None, 0)
    return read_traffic(view.connection, nsid, ifindex) if nsid is not None and ifindex else None
