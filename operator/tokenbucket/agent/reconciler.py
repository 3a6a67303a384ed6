"""One run of the agent, in rounds: observe, compute the desired state, plan, prepare, and apply.

A run keeps no state that is not in the kernel. Between runs the agent remembers only the facts that it
needs to distinguish a repair from a first attachment, a new declaration from an address that a pod gave
away, and a new deviation from a logged deviation. It remembers the desired limits of each pod only to
save time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tokenbucket.agent.executor import Done, Executor, affected_limits
from tokenbucket.agent.locate import Locator
from tokenbucket.agent.observer import Observer
from tokenbucket.agent.verification import Verifier
from tokenbucket.bpf.locks import Locks
from tokenbucket.core.limits.slot import Owner, SlotConfig
from tokenbucket.core.planning.capabilities import Capabilities
from tokenbucket.core.planning.desired import desired
from tokenbucket.core.planning.identity import Identified, identify
from tokenbucket.core.planning.kept import NodeSettings, delays_of, kept_limits, with_delays
from tokenbucket.core.planning.namespace_moves import Declarations
from tokenbucket.core.planning.plan import AddQueue, Attach, Observed, Plan, RemoveQueue, plan
from tokenbucket.core.planning.pod_limits import Desired, Deviation, Memory
from tokenbucket.core.planning.reasons import Effect, Reason
from tokenbucket.core.status.node_status import DesiredInput, Outcome
from tokenbucket.netlink.events import LINKS, TRAFFIC_CONTROL, Event
from tokenbucket.netlink.fq import has_fq
from tokenbucket.node.view import View

log = logging.getLogger(__name__)

_EXPECTED = {Effect.PENDING, Effect.EXEMPT}
"""Effects that need no action."""

_ROUNDS = 3
"""The first round may find that a queue is rejected, the second that a filter is."""


@dataclass(slots=True)
class Reconciler:
    """Changes the state of the kernel to the declared state. Belongs to the thread of the view."""

    observer: Observer
    executor: Executor
    locks: Locks
    capabilities: Capabilities
    """The abilities that remain after the rejections since the last periodic check."""
    verifier: Verifier
    _declarations: Declarations = field(default_factory=Declarations)
    _memory: Memory = field(default_factory=Memory)
    _delays: Mapping[Owner, SlotConfig] = field(default_factory=dict)
    """Kept limits with Delay. A later run tries again to add a queue that was rejected."""
    _logged: frozenset[Deviation] = frozenset()

    def reconcile(self, inputs: DesiredInput) -> Outcome:
        """Run until no interface rejects the plan. Raises KernelError if the kernel cannot be read."""
        self.capabilities = self.capabilities.with_bypass(self.verifier.bypassed_directions)
        with self.locks.writing():
            self.observer.view.refresh()
            found = identify(inputs.pods, self.observer.view.named, self.observer.view.holders)
            settled = self._declarations.unchanged(found.pods)
            for _ in range(_ROUNDS):
                slots, placements = self.observer.read(settled)
                abilities = self.observer.survey(self.capabilities)
                locate = Locator(
                    self.observer.view, placements, abilities.data_plane, found.namespaces
                ).locate
                kept = kept_limits(slots.values(), inputs.rejected, found.pods)
                kept = with_delays(kept, self._delays)
                self._delays = delays_of(kept)
                settings = NodeSettings(inputs.enforcement, kept)
                target = desired(inputs.policies, found.pods, locate, abilities, settings, self._memory)
                observed = self.observer.observe(slots)
                planned = plan(target.wanted, observed)
                done = self._execute(target, planned, observed)
                no_clsact = done.no_clsact if abilities.data_plane.may_use_tcx else set()
                if not (done.rejections or no_clsact):
                    break
                self.capabilities = self.capabilities.without(done.rejections, no_clsact)
        return self._outcome(found, target, planned, done)

    def _execute(self, target: Desired, planned: Plan, observed: Observed) -> Done:
        keys = {point: key for key, wanted in target.wanted.items() for point in wanted.points}
        rejections = self.executor.prepare(planned)
        if not rejections:
            done = self.executor.apply(planned, observed, keys)
            # Packets that passed while a limit was not attached do not bypass it.
            for action in planned.actions:
                if isinstance(action, Attach):
                    self.verifier.forget(keys[action.point])
            return done
        actions = (action for action in planned.actions if not isinstance(action, AddQueue | RemoveQueue))
        missing = set().union(*(affected_limits(action, keys) for action in actions))
        return Done(failures=len(rejections), missing=missing, rejections=dict(rejections))

    def _outcome(self, identified: Identified, target: Desired, planned: Plan, done: Done) -> Outcome:
        found = (*target.deviations, *self._unenforced(target, planned), *done.deviations)
        deviations = tuple(each.of_limit for each in found)
        unenforced = {*planned.without_slot, *self.verifier.not_running, *done.missing}
        missing = {key for key in unenforced if not key.is_guard}
        self._declarations.record(identified.pods, {key.subject for key in missing})
        self._log_changes(frozenset(deviations))
        active = {
            key: limit
            for key, limit in target.active.items()
            if key not in missing and target.wanted[key].points
        }
        return Outcome(
            actions=done.actions,
            complete=not (done.failures or planned.without_slot),
            failing=frozenset(key for key in done.missing if not key.is_guard),
            deviations=deviations,
            active=active,
            attachments=Counter(str(point) for key in active for point in target.wanted[key].points),
            points={key: wanted.points for key, wanted in target.wanted.items() if wanted.points},
            foreign_programs=self.verifier.foreign_programs(self.observer.view),
            fq=self.capabilities.fq,
            waits=done.holding > 0 or any(each.reason is Reason.ADDRESS_CONFLICT for each in deviations),
        )

    def _unenforced(self, target: Desired, planned: Plan) -> Iterator[Deviation]:
        yield from self.verifier.deviations(target.wanted.keys())
        count = self.observer.slots.count
        for key in planned.without_slot:
            yield Deviation(key, Reason.NO_FREE_SLOT, f"slots: all {count} are in use; raise --slots")

    def verify(self, *, everything: bool = False) -> bool:
        """Check whether attached limits run. Return whether a run is due. Raises KernelError."""
        changed = self.verifier.check(self.observer.view, everything=everything)
        return self.executor.has_lost() or changed

    def resync(self) -> None:
        """Invalidate all cached state before the next run."""
        view, executor = self.observer.view, self.executor
        executor.culprits = {
            ifindex: name for ifindex, name in executor.culprits.items() if ifindex in view.links
        }
        view.invalidate_all()
        view.pod_namespaces.search()

    def check_periodically(self) -> None:
        """Forget rejections, and probe for fq again. Raises KernelError."""
        view = self.observer.view
        self.executor.queues.resync(view)
        known = self.capabilities
        data_plane = replace(known.data_plane, no_clsact=frozenset())
        self.capabilities = Capabilities(known.fq or has_fq(view.connection), data_plane=data_plane)

    def note_change(self, event: Event) -> None:
        """Try again to attach filters in a pod whose interfaces or filters others changed."""
        known = None if event.nsid is None else self.observer.view.pod_namespaces.known.get(event.nsid)
        if known and event.kind in LINKS | TRAFFIC_CONTROL:
            self.capabilities = self.capabilities.with_changed_namespace(known.namespace.inode)

    def replace_view(self, view: View) -> None:
        """Continue with a new view, which is empty until its first refresh."""
        self.observer.view = self.executor.view = view

    def _log_changes(self, deviations: frozenset[Deviation]) -> None:
        """Log each new deviation, and each one that no longer exists."""
        for deviation in sorted(deviations - self._logged, key=str):
            fields = {"limit": deviation.key, "reason": deviation.reason, "detail": deviation.message}
            # Every new pod is pending for a moment.
            level = logging.INFO if deviation.reason.effect in _EXPECTED else logging.WARNING
            log.log(level, "limit not enforced as declared", extra=fields)
        for deviation in sorted(self._logged - deviations, key=str):
            log.info("reason no longer applies", extra={"limit": deviation.key, "reason": deviation.reason})
        self._logged = deviations
