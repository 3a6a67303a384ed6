"""One pass: what should be, what is, the plan, and its actions.

A pass keeps nothing that it could not read back. What it remembers from one pass to the next is only for
telling a repair from a first attachment, a new declaration from an address that was given away, and news from
what was said before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tokenbucket.agent.actions import WORDS, Action, concerned, details
from tokenbucket.agent.locate import Locator
from tokenbucket.agent.outcome import Outcome
from tokenbucket.agent.queues import Queues
from tokenbucket.agent.repairs import Repairs
from tokenbucket.agent.verification import Verifier
from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.programs import Programs
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Mode, Policy
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.planning.desired import Desired, Deviation, desired
from tokenbucket.core.planning.hook import HookPoint, Interface
from tokenbucket.core.planning.placement import Declarations, Placements
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
    plan,
)
from tokenbucket.core.planning.reasons import Degradation, Reason
from tokenbucket.errors import KernelError, TokenBucketError, UnsupportedError
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.view import View

log = logging.getLogger(__name__)

"""What is done here; queues are added before, and removed after."""
_REMOVED_INSIDE = "our filter was removed more than 5 times in a minute, from within the pod or by a plugin"


@dataclass(slots=True)
class _Done:
    """What became of a plan's actions."""

    actions: int = 0
    failures: int = 0
    findings: list[Deviation] = field(default_factory=list)
    missing: set[SlotKey] = field(default_factory=set)
    """Limits that are not in force, or not as declared, for want of one of them."""


@dataclass(slots=True)
class Reconciler:
    """Makes the kernel what policies and pods say. Belongs to one thread."""

    view: View
    slots: Slots
    programs: Programs
    locks: Locks
    queues: Queues
    verifier: Verifier
    repairs: Repairs = field(default_factory=Repairs)
    culprits: dict[int, str] = field(default_factory=dict)
    """By interface, the name of the process that last removed something of ours there."""
    _declarations: Declarations = field(default_factory=Declarations)
    _attached: dict[HookPoint, int] = field(default_factory=dict)
    _said: frozenset[Deviation] = frozenset()
    _failed: AbstractSet[SlotKey] = frozenset()
    """Limits of which an action failed in the last pass."""
    _refused_inside: bool = False
    """Whether a filter could not be on a pod's own interface in the last pass."""

    def run(
        self, policies: Iterable[Policy], pods: Iterable[Pod], enforcement: Mode = Mode.ENFORCE
    ) -> Outcome:
        """One pass. Failures of single actions are logged and the pass goes on. Raises KernelError."""
        policies, pods = tuple(policies), tuple(pods)
        self._refused_inside = False
        outcome = self._pass(policies, pods, enforcement)
        # What such a pod sends is limited on the node's side, and not only from the next pass on.
        return self._pass(policies, pods, enforcement) if self._refused_inside else outcome

    def _pass(self, policies: Sequence[Policy], pods: Sequence[Pod], enforcement: Mode) -> Outcome:
        with self.locks.writing():
            wish, planned, observed = self._plan(policies, pods, enforcement)
            if self._gives_way_in_pods(planned):
                wish, planned, observed = self._plan(policies, pods, enforcement)
            queues = [action.interface for action in planned.actions if isinstance(action, AddQueue)]
            if not self.queues.add(self.view, queues):
                wish, planned, observed = self._plan(policies, pods, enforcement)
            findings = wish.findings
            findings += self.verifier.deviations(wish.wanted.keys())
            missing = set(planned.without_slot) | self.verifier.not_running
            findings += [
                Deviation(key, Reason.NO_FREE_SLOT, f"all {self.slots.count} slots are taken; see --slots")
                for key in planned.without_slot
            ]
            keys = {point: key for key, wanted in wish.wanted.items() for point in wanted.points}
            done = self._act(planned, observed, keys)
            findings += done.findings
            removed = self.queues.remove(
                self.view, [action.interface for action in planned.actions if isinstance(action, RemoveQueue)]
            )
            missing |= done.missing
            self._failed = done.missing
            self._declarations.passed(pods, {key.subject for key in missing})
            self._attached = {point: slot for point, slot in self._attached.items() if point in keys}
        self._say(frozenset(findings))
        complete = not (done.failures or removed.failed or planned.without_slot)
        in_force = {
            key: each for key, each in wish.in_force.items() if key not in missing and wish.wanted[key].points
        }
        waits = removed.holding > 0 or any(each.reason is Reason.ADDRESS_CONFLICT for each in findings)
        return Outcome(
            done.actions + removed.gone, complete, tuple(findings), in_force, self.queues.available, waits
        )

    def _plan(
        self, policies: Iterable[Policy], pods: Iterable[Pod], enforcement: Mode
    ) -> tuple[Desired, Plan, Observed]:
        self.view.refresh()
        homes = self._homes(self._declarations.unchanged(pods))
        wish = desired(policies, pods, Locator(self.view, self.queues, homes).locate, enforcement)
        observed = self._observed()  # also what is in namespaces that were just entered
        return wish, plan(wish.wanted, observed), observed

    def _homes(self, settled: AbstractSet[PodId]) -> Placements:
        """Where the limits of these pods are, as long as veths lead there."""
        homes = self._homes_in_view(settled)
        if self.view.pod_namespaces.searched:
            return homes
        has_slot = {slot.owner.key.subject for slot in self.slots.read().values()} & settled
        if any(homes.of(pod) is None for pod in has_slot):
            # An agent before, or the connection before, may know of a filter inside a pod.
            self.view.pod_namespaces.search()
            self.view.refresh()
            homes = self._homes_in_view(settled)
        return homes

    def _homes_in_view(self, settled: AbstractSet[PodId]) -> Placements:
        observed, homes = self._observed(), Placements()
        for point, attached in observed.filters.items():
            slot = observed.slots.get(attached.slot)
            nsid = self.view.namespace_behind(point.interface)
            if nsid is None or not slot or slot.owner.key.subject not in settled:
                continue
            if self.view.leading_to(nsid).veths:
                homes.add(slot.owner.key.subject, nsid)
        return homes

    def _may_free(self, action: FreeSlot, named: AbstractSet[int]) -> bool:
        """Not while a filter may name it: what passes there would be charged to the next pod that has it."""
        if not self.view.pod_namespaces.searched:
            self.view.pod_namespaces.search()
            return False
        return action.index not in named

    def look_everywhere(self) -> None:
        """The next pass believes nothing that it knows."""
        self.culprits = {
            ifindex: name for ifindex, name in self.culprits.items() if ifindex in self.view.links
        }
        self.view.invalidate_all()
        self.view.pod_namespaces.search()

    def _observed(self) -> Observed:
        attached, queues = {}, set()
        for namespace, filters, roots in self.view.everywhere():
            for ours in (each for found in filters.values() for each in found.ours):
                point = HookPoint(Interface(ours.ifindex, namespace), ours.hook)
                if self.slots.limits_device_in_another_layout(ours.slot, ours.prog_id):
                    continue
                slot = self.slots.resolve_slot(ours.slot, ours.prog_id)
                attached[point] = Attached(slot, ours.prog_id == self.programs.ids[ours.hook])
            queues |= {Interface(ifindex, namespace) for ifindex, root in roots.items() if root.ours}
        return Observed(self.slots.read(), attached, self.slots.count, queues)

    def _act(self, planned: Plan, observed: Observed, keys: dict[HookPoint, SlotKey]) -> _Done:
        """What a plan says of slots and filters."""
        done = _Done()
        named: set[int] = set()  # by filters that stay
        unattached: set[int] = set()
        for action in (each for each in planned.actions if not isinstance(each, AddQueue | RemoveQueue)):
            if isinstance(action, FreeSlot) and not self._may_free(action, named):
                done.failures += 1
                continue
            there = observed.filters.get(action.point) if isinstance(action, Attach | Detach) else None
            if isinstance(action, Detach) and there and there.slot in unattached:
                continue  # better where it was than nowhere, until it is where it should be
            finding, failed = self._do(action, keys)
            if not (failed or finding):
                done.actions += 1
                continue
            done.failures += failed
            done.findings += [finding] if finding else []
            done.missing |= concerned(action, keys)
            unattached |= {action.slot} if isinstance(action, Attach) else set()
            named |= {there.slot} if there else set()
        return done

    def _do(self, action: Action, keys: dict[HookPoint, SlotKey]) -> tuple[Deviation | None, bool]:
        """Does one action. Returns what its owner should know, and whether it is to be tried again."""
        try:
            if isinstance(action, Attach) and not self._may_attach(action):
                return Deviation(keys[action.point], Reason.CONTENDED, self._contention(action.point)), True
            self._apply(action)
        except UnsupportedError as error:
            assert isinstance(action, Attach)  # noqa: S101 - nothing else meets foreign filters
            if self._cannot_be_inside(action, error):
                return None, True
            return Deviation(keys[action.point], Reason.FOREIGN_FILTER, str(error)), False
        except KernelError as error:
            log.warning("action failed", extra={"action": WORDS[type(action)], "error": str(error)})
            self.view.invalidate_all()
            if self._cannot_be_inside(action, error):
                return None, True
            # Once is nothing: interfaces go while they are being looked at.
            lasting = concerned(action, keys) & self._failed
            return next((Deviation(key, Reason.KERNEL_REFUSES, str(error)) for key in lasting), None), True
        log.info(WORDS[type(action)], extra=details(action, self.view.name_of))
        return None, False

    def _gives_way_in_pods(self, planned: Plan) -> bool:
        """Whether a pod removes our filter from its own interface again and again. What it sends is then
        limited on the node's side, where it cannot.
        """
        attachments = [each for each in planned.actions if isinstance(each, Attach)]
        contended = {
            each.point.interface
            for each in attachments
            if each.point.interface.namespace
            and self._is_repair(each)
            and self.repairs.exhausted(each.point.interface, time.monotonic())
        }
        for interface in contended:
            text = f"{self.view.name_of(interface)}: {_REMOVED_INSIDE}; Drop is in force"
            self.queues.refuse(interface, Degradation(Reason.CONTENDED_IN_POD, text))
        return bool(contended)

    def _cannot_be_inside(self, action: Action, error: TokenBucketError) -> bool:
        """Whether it is a filter on a pod's own interface that cannot be had."""
        if not isinstance(action, Attach) or not action.point.interface.namespace:
            return False
        self._refused_inside = True
        self.queues.refuse(
            action.point.interface, Degradation(Reason.NO_FILTER_IN_POD, f"{error}; Drop is in force")
        )
        return True

    def _is_repair(self, action: Attach) -> bool:
        there = self.view.filters_at(action.point.interface).ours
        was_there = self._attached.get(action.point) == action.slot
        return was_there and all(ours.hook is not action.point.hook for ours in there)

    def _may_attach(self, action: Attach) -> bool:
        return not self._is_repair(action) or self.repairs.allow(action.point.interface, time.monotonic())

    def _contention(self, point: HookPoint) -> str:
        foreign = ", ".join(str(each) for each in self.view.filters_at(point.interface).foreign)
        return (
            f"{self.view.name_of(point.interface)}: our filter was removed more than 5 times in a minute"
            f" by {self.culprits.get(point.interface.ifindex, 'an unknown process')}"
            + (f"; on the interface there is also {foreign}" if foreign else "")
        )

    def _apply(self, action: Action) -> None:
        match action:
            case WriteSlot(index, slot, fresh):
                self.slots.write(index, slot, fresh=fresh)
            case Attach(point, index):
                self._attach(point, index)
            case Detach(point):
                with self.view.changing(point.interface) as connection:
                    Filters(connection).detach(point.interface.ifindex, point.hook)
            case FreeSlot(index):
                self.slots.free(index)

    def _attach(self, point: HookPoint, index: int) -> None:
        there = {
            each.prog_id for each in self.view.filters_at(point.interface).ours if each.hook is point.hook
        }
        moves_over = not there.isdisjoint(self.slots.previous_layouts.program_ids)
        with self.view.changing(point.interface) as connection:
            if moves_over:  # before, to be exact from the first packet; after, for those meanwhile
                self.slots.carry_over_charges(index)
            program = self.programs.fds[point.hook]
            Filters(connection).attach(point.interface.ifindex, point.hook, program, index)
            if moves_over:
                self.slots.carry_over_charges(index)
        self._attached[point] = index

    def _say(self, findings: frozenset[Deviation]) -> None:
        """One line for each finding that is new, and one for each that is no more."""
        for finding in sorted(findings - self._said, key=str):
            details = {"limit": finding.key, "reason": finding.reason, "detail": finding.message}
            # Every pod is without an address for a moment.
            level = logging.INFO if finding.reason is Reason.NO_ADDRESS else logging.WARNING
            log.log(level, "not in force as declared", extra=details)
        for finding in sorted(self._said - findings, key=str):
            log.info("no longer the case", extra={"limit": finding.key, "reason": finding.reason})
        self._said = findings
