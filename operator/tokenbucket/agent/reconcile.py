"""One pass: what should be, what is, the plan, and its actions.

A pass keeps nothing that it could not read back. What it remembers from one pass to the next is only for
telling a repair from a first attachment, and news from what was said before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenbucket.agent.repairs import Repairs
from tokenbucket.bpf.locks import Locks
from tokenbucket.bpf.slots import Programs, Slots
from tokenbucket.core.desired import Address, Finding, Located, Reason, desired
from tokenbucket.core.hook import HookPoint
from tokenbucket.core.plan import Action, Attach, Attached, Detach, FreeSlot, Observed, WriteSlot, plan
from tokenbucket.core.pod import Pod
from tokenbucket.core.policy import Policy
from tokenbucket.core.slot import SlotKey
from tokenbucket.errors import KernelError, UnsupportedError
from tokenbucket.netlink.filters import Filters
from tokenbucket.netlink.view import Place, View, Whereabouts

log = logging.getLogger(__name__)

_NOT_LOCATED = {
    Place.UNKNOWN: (
        Reason.NO_INTERFACE,
        "no interface of this node leads to a namespace with the pod's address",
    ),
    Place.HOST: (Reason.HOST_NETWORK, "the pod's address is the node's own; it is not limited"),
    Place.AMBIGUOUS: (Reason.ADDRESS_CONFLICT, "more than one network namespace has the pod's addresses"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did. Not ``complete``: something failed that may work when tried again."""

    actions: int
    complete: bool
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class Reconciler:
    """Makes the kernel what policies and pods say. Belongs to one thread."""

    view: View
    filters: Filters
    slots: Slots
    programs: Programs
    locks: Locks
    repairs: Repairs = field(default_factory=Repairs)
    culprits: dict[int, str] = field(default_factory=dict)
    """By interface, the name of the process that last removed something of ours there."""
    _attached: dict[HookPoint, int] = field(default_factory=dict)
    _said: frozenset[Finding] = frozenset()

    def run(self, policies: Iterable[Policy], pods: Iterable[Pod]) -> Outcome:
        """One pass. Failures of single actions are logged and the pass goes on. Raises KernelError."""
        with self.locks.writing():
            self.view.refresh()
            wish = desired(policies, pods, self._locate)
            planned = plan(wish.wanted, self._observed())
            findings = wish.findings
            findings += [
                Finding(key, Reason.NO_FREE_SLOT, f"all {self.slots.count} slots are taken; see --slots")
                for key in planned.without_slot
            ]
            keys = {point: key for key, wanted in wish.wanted.items() for point in wanted.points}
            done = failures = 0
            for action in planned.actions:
                finding, failed = self._do(action, keys)
                findings += [finding] if finding else []
                failures += failed
                done += not (failed or finding)
            self._attached = {point: slot for point, slot in self._attached.items() if point in keys}
        self._say(frozenset(findings))
        complete = not failures and not planned.without_slot
        return Outcome(done, complete, tuple(findings))

    def _observed(self) -> Observed:
        attached = {
            HookPoint(ours.ifindex, ours.hook): Attached(
                ours.slot, ours.prog_id == self.programs.ids[ours.hook]
            )
            for filters in self.view.filters.values()
            for ours in filters.ours
        }
        return Observed(self.slots.read(), attached, self.slots.count)

    def _locate(self, addresses: frozenset[Address]) -> Located:
        where = self.view.interfaces_of(*addresses)
        if where.place is not Place.NAMESPACE:
            return Located(frozenset(), *_NOT_LOCATED[where.place])
        if not where.veths:
            return Located(frozenset(), Reason.NO_INTERFACE, _not_a_veth(where))
        return Located(frozenset(link.ifindex for link in where.veths))

    def _do(self, action: Action, keys: dict[HookPoint, SlotKey]) -> tuple[Finding | None, bool]:
        """Does one action. Returns what its owner should know, and whether it is to be tried again."""
        try:
            if isinstance(action, Attach) and not self._may_attach(action):
                return Finding(keys[action.point], Reason.CONTENDED, self._contention(action.point)), True
            self._apply(action)
        except UnsupportedError as error:
            assert isinstance(action, Attach)  # noqa: S101 - nothing else meets foreign filters
            return Finding(keys[action.point], Reason.FOREIGN_FILTER, str(error)), False
        except KernelError as error:
            log.warning("action failed", extra={"action": _words(action), "error": str(error)})
            self.view.invalidate_all()
            return None, True
        log.info(_words(action), extra=self._details(action))
        return None, False

    def _may_attach(self, action: Attach) -> bool:
        there = self.view.filters.get(action.point.ifindex)
        is_repair = self._attached.get(action.point) == action.slot and not (
            there and any(ours.hook is action.point.hook for ours in there.ours)
        )
        return not is_repair or self.repairs.allow(action.point.ifindex, time.monotonic())

    def _contention(self, point: HookPoint) -> str:
        filters = self.view.filters.get(point.ifindex)
        foreign = ", ".join(str(each) for each in filters.foreign) if filters else ""
        return (
            f"{self._name(point.ifindex)}: our filter was removed more than 5 times in a minute"
            f" by {self.culprits.get(point.ifindex, 'an unknown process')}"
            + (f"; on the interface there is also {foreign}" if foreign else "")
        )

    def _apply(self, action: Action) -> None:
        match action:
            case WriteSlot(index, slot, fresh):
                self.slots.write(index, slot, fresh=fresh)
            case Attach(point, index):
                self.view.invalidate_filters(point.ifindex)
                self.filters.attach(point.ifindex, point.hook, self.programs.fds[point.hook], index)
                self._attached[point] = index
            case Detach(point):
                self.view.invalidate_filters(point.ifindex)
                self.filters.detach(point.ifindex, point.hook)
            case FreeSlot(index):
                self.slots.free(index)

    def _details(self, action: Action) -> dict[str, object]:
        match action:
            case WriteSlot(index, slot, fresh):
                rates = {"bits_per_s": slot.config.bits_per_s, "packets_per_s": slot.config.packets_per_s}
                return {
                    "limit": slot.owner.key,
                    "policy": slot.owner.policy,
                    "slot": index,
                    "new": fresh,
                } | rates
            case Attach(point, index):
                return {"interface": self._name(point.ifindex), "hook": point.hook, "slot": index}
            case Detach(point):
                return {"interface": self._name(point.ifindex), "hook": point.hook}
            case FreeSlot(index):
                return {"slot": index}

    def _name(self, ifindex: int) -> str:
        link = self.view.links.get(ifindex)
        return link.name if link else f"interface {ifindex}"

    def _say(self, findings: frozenset[Finding]) -> None:
        """One line for each finding that is new, and one for each that is no more."""
        for finding in sorted(findings - self._said, key=str):
            details = {"limit": finding.key, "reason": finding.reason, "detail": finding.message}
            log.warning("not in force as declared", extra=details)
        for finding in sorted(self._said - findings, key=str):
            log.info("no longer the case", extra={"limit": finding.key, "reason": finding.reason})
        self._said = findings


def _words(action: Action) -> str:
    match action:
        case WriteSlot():
            return "limit set"
        case Attach():
            return "attached"
        case Detach():
            return "detached"
        case FreeSlot():
            return "limit lifted"


def _not_a_veth(where: Whereabouts) -> str:
    others = ", ".join(f"{link.name} ({link.kind})" for link in where.others)
    return (
        f"the pod is reached over {others}, which is no veth"
        if others
        else "the pod has no veth on this node"
    )
