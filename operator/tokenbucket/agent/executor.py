"""Execute a plan: write queues, slots and filters, and limit repairs after interference."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tokenbucket.agent.action_log import SlotAction, log_event, log_fields
from tokenbucket.agent.lower_rates import LowerRates
from tokenbucket.agent.queues import Queues
from tokenbucket.bpf.node_addresses import NodeAddresses
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.bpf.stubs import Stubs
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.attachment import HookPoint, Interface, Mechanism
from tokenbucket.core.planning.capabilities import Degradation, Rejections
from tokenbucket.core.planning.plan import (
    AddQueue,
    Attach,
    Attached,
    Detach,
    FreeSlot,
    Observed,
    Plan,
    RemoveQueue,
    WriteSlot,
)
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.reasons import Reason
from tokenbucket.errors import KernelError, TokenBucketError, UnsupportedError
from tokenbucket.netlink.filters import Filter
from tokenbucket.node.view import View
from tokenbucket.pacing import REPAIRS, Repairs

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Done:
    """The result of a plan's actions."""

    actions: int = 0
    failures: int = 0
    """Actions that failed and may succeed later."""
    holding: int = 0
    """Queues that stay until they are empty, and guards that keep their rate until packets have left."""
    deviations: list[Deviation] = field(default_factory=list)
    missing: set[SlotKey] = field(default_factory=set)
    """Limits that are not enforced as planned, because an action failed."""
    rejections: dict[Interface, Degradation] = field(default_factory=dict)
    no_clsact: set[Interface] = field(default_factory=set)
    """Interfaces that rejected a filter of clsact."""


@dataclass(slots=True)
class Executor:
    """Writes the kernel's state. Belongs to the thread of the view."""

    view: View
    slots: Slots
    programs: Programs
    stubs: Stubs
    node_addresses: NodeAddresses
    queues: Queues = field(default_factory=Queues)
    repairs: Repairs = field(default_factory=Repairs)
    lower_rates: LowerRates = field(default_factory=LowerRates)
    culprits: dict[int, str] = field(default_factory=dict)
    """By interface, the name of the process that last removed tokenbucket's filter or qdisc."""
    _attached: dict[HookPoint, int] = field(default_factory=dict)
    """The filters that this agent attached, by point: if one is missing, attaching it is a repair."""
    _recent: set[HookPoint] = field(default_factory=set)
    """Those that it attached since it last checked for lost ones."""
    _kept: set[int] = field(default_factory=set)
    """Slots that are not free, as the log shows."""
    _failed: AbstractSet[SlotKey] = frozenset()
    """Limits with a failed action in the last plan."""

    def prepare(self, planned: Plan) -> Rejections:
        """Add the plan's queues, and return the interfaces that reject a queue or a filter.

        The plan must not be applied if any interface rejects: its slots would delay packets that no queue
        holds. The queues that were added stay; the next plan uses or removes them.
        """
        rejections = self._contended_in_pods(planned)
        for action in planned.actions:
            if isinstance(action, AddQueue) and action.interface not in rejections:
                why_not = self.queues.add(self.view, action.interface)
                if why_not:
                    reason = Reason.NO_QUEUE_IN_POD if action.interface.is_ifb else Reason.NO_FQ
                    rejections[action.interface] = Degradation(reason, why_not)
        return rejections

    def _contended_in_pods(self, planned: Plan) -> dict[Interface, Degradation]:
        """Return the pod-side interfaces from which a process keeps removing tokenbucket's filter.

        The agent then limits egress on the host-side interface, which the pod cannot change. If there is no
        host-side interface, the agent reports the interface.
        """
        contended = {
            action.point.interface
            for action in planned.actions
            if isinstance(action, Attach)
            and action.point.interface.namespace
            and self._is_repair(action)
            and self.repairs.exhausted(action.point.interface, time.monotonic())
        }
        text = (
            f"tokenbucket's filter was removed more than {REPAIRS} times in a minute, "
            "from within the pod or by a plugin"
        )
        return {
            interface: Degradation(Reason.CONTENDED_IN_POD, f"{self.view.name_of(interface)}: {text}")
            for interface in contended
        }

    def apply(self, planned: Plan, observed: Observed, keys: Mapping[HookPoint, SlotKey]) -> Done:
        """Execute a prepared plan. Log failures of single actions and continue with the others.

        ``keys`` are the limits by the points where they belong. Detaching a filter, or freeing a slot, waits
        until the filter that replaces it is attached: a limit stays where it is until its new place has it,
        also if its guard takes the old place.
        """
        self.node_addresses.write(self.view.addresses.get(None, frozenset()))
        done = Done()
        named: set[int] = set()  # slots of filters that stay
        unattached: set[int] = set()
        for action in planned.actions:
            if isinstance(action, AddQueue | RemoveQueue):
                continue
            if isinstance(action, FreeSlot) and self._is_named_in_pod(action):
                continue
            if isinstance(action, FreeSlot) and not self._may_free(action, named):
                done.failures += 1
                continue
            if isinstance(action, WriteSlot) and self.lower_rates.holds_back(
                action, observed.slots.get(action.index), time.monotonic()
            ):
                done.holding += 1
                continue
            there = observed.filters.get(action.point) if isinstance(action, Attach | Detach) else None
            if _must_wait(action, there, unattached):
                continue
            if self._execute(action, keys, done):
                done.actions += 1
                continue
            done.missing |= affected_limits(action, keys)
            unattached |= {action.slot} if isinstance(action, Attach) else set()
            named |= {there.slot} if there else set()
        self._remove_queues(planned, done)
        self._failed = done.missing
        self._attached = {point: slot for point, slot in self._attached.items() if point in keys}
        return done

    def _may_free(self, action: FreeSlot, named: AbstractSet[int]) -> bool:
        """Return False while a filter may name the slot: its packets would count for the next limit."""
        if not self.view.pod_namespaces.searched:
            self.view.pod_namespaces.search()
            return False
        return action.index not in named

    def _is_named_in_pod(self, action: FreeSlot) -> bool:
        """Return whether a filter may name the slot in a pod that this agent may not enter."""
        namespaces = self.slots.pod_filters.namespaces(action.index)
        if not (namespaces and self.view.pod_namespaces.hide_any(namespaces)):
            return False
        if action.index not in self._kept:
            why = "a filter in a pod may name it, and the agent may not enter pods"
            log.warning("slot not free", extra={"slot": action.index, "error": why})
            self._kept.add(action.index)
        return True

    def _remove_queues(self, planned: Plan, done: Done) -> None:
        interfaces = [action.interface for action in planned.actions if isinstance(action, RemoveQueue)]
        removed = self.queues.remove(self.view, interfaces)
        done.actions += removed.gone
        done.failures += removed.failed
        done.holding += removed.holding

    def _execute(self, action: SlotAction, keys: Mapping[HookPoint, SlotKey], done: Done) -> bool:
        """Execute one action, and return whether it succeeded. Record deviations, failures and rejections."""
        try:
            if isinstance(action, Attach) and not self._may_attach(action):
                deviation = Deviation(keys[action.point], Reason.CONTENDED, self._contention(action.point))
                done.deviations.append(deviation)
                done.failures += 1
                self._record_clsact(action.point, done)
                return False
            self._apply(action)
        except (UnsupportedError, KernelError) as error:
            self._record_failure(action, error, keys, done)
            return False
        log.info(log_event(action), extra=log_fields(action, self.view.name_of))
        return True

    def _record_failure(
        self, action: SlotAction, error: TokenBucketError, keys: Mapping[HookPoint, SlotKey], done: Done
    ) -> None:
        if isinstance(error, KernelError):
            log.warning("action failed", extra={"action": log_event(action), "error": str(error)})
            self.view.invalidate_all()
        affected = affected_limits(action, keys)
        if isinstance(action, Attach) and action.point.interface.namespace:
            text = f"{self.view.name_of(action.point.interface)}: {error}"
            done.rejections[action.point.interface] = Degradation(Reason.NO_FILTER_IN_POD, text)
        elif isinstance(error, UnsupportedError):  # does not change until the other program gives way
            if isinstance(action, Attach):
                self._record_clsact(action.point, done)
            done.deviations += [Deviation(key, Reason.FOREIGN_FILTER, str(error)) for key in affected]
            return
        else:
            # Report only repeated failures: interfaces disappear while the agent reads them.
            lasting = sorted(affected & self._failed, key=str)
            done.deviations += [Deviation(key, Reason.KERNEL_REJECTS, str(error)) for key in lasting]
        done.failures += 1

    def _record_clsact(self, point: HookPoint, done: Done) -> None:
        if point.mechanism is Mechanism.CLSACT:
            done.no_clsact.add(point.interface)

    def has_lost(self) -> bool:
        """Return whether an attachment of the last run is gone. The loss of a tcx link causes no event."""
        recent, self._recent = self._recent, set()
        return any(not self._there(point) for point in recent)

    def _there(self, point: HookPoint) -> list[Filter]:
        """Return tokenbucket's filters at a point."""
        filters = self.view.filters_at(point.interface).ours
        return [ours for ours in filters if (ours.hook, ours.mechanism) == (point.hook, point.mechanism)]

    def _is_repair(self, action: Attach) -> bool:
        """Return whether others removed the attachment, or put a program before it."""
        point = action.point
        there = self._there(point)
        return self._attached.get(point) == action.slot and not any(ours.is_first for ours in there)

    def _may_attach(self, action: Attach) -> bool:
        return not self._is_repair(action) or self.repairs.allow(action.point.interface, time.monotonic())

    def _contention(self, point: HookPoint) -> str:
        foreign = ", ".join(str(each) for each in self.view.filters_at(point.interface).foreign)
        return (
            f"{self.view.name_of(point.interface)}: tokenbucket's filter was removed more than {REPAIRS}"
            f" times in a minute by {self.culprits.get(point.interface.ifindex, 'an unknown process')}"
            + (f"; on the interface there is also {foreign}" if foreign else "")
        )

    def _apply(self, action: SlotAction) -> None:
        match action:
            case WriteSlot(index, slot, fresh):
                self.slots.write(index, slot, fresh=fresh)
            case Attach():
                self._attach(action)
            case Detach(point):
                self._recent.discard(point)
                with self.view.attachments(point.interface) as attachments:
                    attachments.detach(point.interface.ifindex, point.hook, point.mechanism)
            case FreeSlot(index):
                self.slots.free(index)
                self.stubs.remove(index)

    def _attach(self, action: Attach) -> None:
        point, index = action.point, action.slot
        there = {
            ours.prog_id for ours in self.view.filters_at(point.interface).ours if ours.hook is point.hook
        }
        upgrades_layout = not there.isdisjoint(self.slots.previous_layouts.program_ids)
        with self.view.attachments(point.interface) as attachments:
            if upgrades_layout:  # before, so that the first packet is exact; after, for packets in between
                self.slots.carry_over_charges(index)
            nsid = self.view.namespace_behind(point.interface)
            if point.interface.namespace and point.mechanism is Mechanism.CLSACT and nsid is not None:
                self.slots.pod_filters.mark(index, nsid)
            program = self.programs.fds[point.hook]
            attachments.attach(point, program, index, redirects=action.redirects)
            if upgrades_layout:
                self.slots.carry_over_charges(index)
        self._attached[point] = index
        self._recent.add(point)


def affected_limits(action: SlotAction, keys: Mapping[HookPoint, SlotKey]) -> set[SlotKey]:
    """Return the limits that are not enforced without an action. ``keys`` are the limits by their points."""
    match action:
        case WriteSlot(_, slot):
            return {slot.owner.key}
        case Attach(point):
            return {keys[point]}
    return set()


def _must_wait(action: SlotAction, there: Attached | None, unattached: AbstractSet[int]) -> bool:
    """Return whether a slot must keep its attachment at a point, because it is not attached elsewhere yet."""
    attach = action if isinstance(action, Attach) else None
    if attach and attach.redirects and attach.slot in unattached:
        return True  # no program would run at the ifb device
    return there is not None and there.slot in unattached and not (attach and attach.slot == there.slot)
