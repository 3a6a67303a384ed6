"""Verification that attached limits run: which programs run before tokenbucket's, and which counters move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.tcx import TcxReader
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.bypass import BypassWatch, Counted
from tokenbucket.core.planning.desired import Deviation
from tokenbucket.core.planning.foreign import ForeignProgram, Mechanism, list_programs
from tokenbucket.core.planning.hook import Hook, Interface
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.netlink.filters import Filter, ForeignFilter
from tokenbucket.netlink.links import Link, Packets, read_links, read_packets
from tokenbucket.netlink.view import View

_PAST = {
    Direction.INGRESS: "pod: most of its packets arrive without passing tokenbucket's filter",
    Direction.EGRESS: "pod: most of its packets leave without passing tokenbucket's filter",
}


@dataclass(slots=True)
class Verifier:
    """Knows which limits of pods are attached and do not run. Belongs to the agent's thread."""

    slots: Slots
    bypass: BypassWatch = field(default_factory=BypassWatch)
    _tcx: TcxReader = field(default_factory=TcxReader)
    _ahead: Mapping[SlotKey, frozenset[ForeignProgram]] = field(default_factory=dict)
    """Programs that run before tokenbucket's, by limit."""
    _confirmed: frozenset[SlotKey] = frozenset()
    """Limits that the same programs preceded in two checks: traffic had time to prove that the limits run."""
    _redirecting: frozenset[ForeignProgram] = frozenset()
    """Programs at ingress hooks of the node, which can redirect packets into pods."""
    _suspects: dict[SlotKey, frozenset[ForeignProgram]] = field(default_factory=dict)
    """Programs that were there when a limit was found to be bypassed, so that its message does not change."""

    @property
    def not_running(self) -> frozenset[SlotKey]:
        """Limits that are attached and do not run, as far as is known."""
        return self.bypass.bypassed | self._shadowed

    @property
    def _shadowed(self) -> frozenset[SlotKey]:
        """Limits that other programs precede, unless the counters show that these programs let packets on."""
        return self._confirmed - self.bypass.running

    def check(self, view: View, *, everything: bool = False) -> bool:
        """Read programs and, if there are any of others or ``everything`` is asked for, counters.

        Return whether the verdict on any limit changed. Raises KernelError.
        """
        before = self._verdicts()
        attached = list(self._attached(view))
        self._read_programs(view, attached)
        if everything or self._ahead or self._redirecting or self.bypass.bypassed:
            self.bypass.compare(self._count(view, attached))
        self._suspects = {
            key: self._suspects.get(key, self._suspects_of(key)) for key in self.bypass.bypassed
        }
        return self._verdicts() != before

    def deviations(self, keys: AbstractSet[SlotKey]) -> list[Deviation]:
        """Return the reason for each of these limits that does not run."""
        return [self._deviation(key) for key in sorted(keys & self.not_running, key=str)]

    def _verdicts(self) -> object:
        return self.bypass.bypassed, {key: self._ahead[key] for key in self._shadowed}

    def _deviation(self, key: SlotKey) -> Deviation:
        if key in self._shadowed:
            programs = list_programs(self._ahead[key])
            text = f"{programs} runs before tokenbucket's filter; detach it, or attach it after the filter"
            return Deviation(key, Reason.SHADOWED, text)
        suspects = self._suspects[key]
        cause = f"; programs that can redirect or end them: {list_programs(suspects)}" if suspects else ""
        return Deviation(key, Reason.BYPASSED, _PAST[key.direction] + cause)

    def _suspects_of(self, key: SlotKey) -> frozenset[ForeignProgram]:
        ahead = self._ahead.get(key, frozenset())
        return ahead or (self._redirecting if key.direction is Direction.INGRESS else ahead)

    def _attached(self, view: View) -> Iterator[tuple[int, Filter, Slot]]:
        """Yield the filters of pods' limits, with the inode of their namespace, 0 for the node's."""
        slots = self.slots.read()
        for inode, filters, _ in view.all_namespaces():
            for found in filters.values():
                for ours in found.ours:
                    slot = slots.get(self.slots.resolve_slot(ours.slot, ours.prog_id))
                    if slot and isinstance(slot.owner.key.subject, PodId):
                        yield inode, ours, slot

    def _read_programs(self, view: View, attached: list[tuple[int, Filter, Slot]]) -> None:
        links = read_links(view.connection)
        at_ingress = {ifindex: self._programs_at(view, link, Hook.INGRESS) for ifindex, link in links.items()}
        ahead: dict[SlotKey, frozenset[ForeignProgram]] = defaultdict(frozenset)
        for inode, ours, slot in attached:
            ahead[slot.owner.key] |= self._programs_before(view, links, inode, ours, at_ingress)
        now = {key: programs for key, programs in ahead.items() if programs}
        self._confirmed = frozenset(key for key in now if now[key] == self._ahead.get(key))
        for key in now.keys() - self._confirmed:
            self.bypass.forget(key)
        self._ahead = now
        self._redirecting = frozenset().union(*at_ingress.values())

    def _programs_before(
        self,
        view: View,
        links: Mapping[int, Link],
        inode: int,
        ours: Filter,
        at_ingress: Mapping[int, frozenset[ForeignProgram]],
    ) -> frozenset[ForeignProgram]:
        interface = Interface(ours.ifindex, inode)
        name = view.name_of(interface)
        filters = frozenset(
            _of_filter(name, each)
            for each in view.filters_at(interface).foreign
            if each.hook is ours.hook and each.runs_first
        )
        if inode or ours.ifindex not in links:
            return filters
        if ours.hook is Hook.EGRESS:
            return filters | self._tcx_at(links[ours.ifindex], Hook.EGRESS)
        first = {each for each in at_ingress[ours.ifindex] if each.mechanism is not Mechanism.FILTER}
        return filters | first

    def _programs_at(self, view: View, link: Link, hook: Hook) -> frozenset[ForeignProgram]:
        """Return all programs of others at an ingress hook of the node."""
        programs = set(self._tcx_at(link, hook))
        if link.xdp_program_id:
            name = self._tcx.name_of(link.xdp_program_id)
            programs.add(ForeignProgram(link.name, hook, Mechanism.XDP, name, link.xdp_program_id))
        filters = view.filters_at(Interface(link.ifindex)).foreign
        programs |= {_of_filter(link.name, each) for each in filters if each.hook is hook and each.prog_id}
        return frozenset(programs)

    def _tcx_at(self, link: Link, hook: Hook) -> frozenset[ForeignProgram]:
        found = self._tcx.read(link.ifindex, hook)
        return frozenset(
            ForeignProgram(link.name, hook, Mechanism.TCX, each.name, each.program_id, each.link_id)
            for each in found
        )

    def _count(self, view: View, attached: list[tuple[int, Filter, Slot]]) -> dict[SlotKey, Counted]:
        counted: dict[SlotKey, Counted] = {}
        for inode, ours, slot in attached:
            packets = _read_pod_side(view, inode, ours)
            if packets is None:
                continue
            key = slot.owner.key
            crossed = packets.received if key.direction is Direction.INGRESS else packets.sent
            index = self.slots.resolve_slot(ours.slot, ours.prog_id)
            before = counted.get(key) or Counted(0, self.slots.stats(index).seen_packets)
            counted[key] = Counted(before.crossed + crossed, before.seen)
        return counted


def _of_filter(interface: str, found: ForeignFilter) -> ForeignProgram:
    name = found.name or f"{found.kind} filter"
    return ForeignProgram(interface, found.hook, Mechanism.FILTER, name, found.prog_id or 0)


def _read_pod_side(view: View, inode: int, ours: Filter) -> Packets | None:
    """Read the counters of the pod's own interface; ``None`` if it is gone or not in another namespace."""
    if inode:
        nsid, ifindex = view.namespace_behind(Interface(ours.ifindex, inode)), ours.ifindex
    else:
        link = view.links.get(ours.ifindex)
        nsid, ifindex = (link.nsid, link.peer_ifindex or 0) if link else (None, 0)
    return read_packets(view.connection, nsid, ifindex) if nsid is not None and ifindex else None
