"""Compute the limits of one pod from its policies, its interfaces and the abilities of the node.

A reconcile run computes only the limits of pods whose policies, interfaces or abilities differ from those of
the previous run. With hundreds of pods, this decides how long a new pod waits for its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction, Mode, Policy
from tokenbucket.core.limits.guard import guard_of
from tokenbucket.core.limits.slot import Owner, Slot, SlotKey
from tokenbucket.core.planning.active_limit import ActiveLimit, active_limit
from tokenbucket.core.planning.attachment import IFB, End, Hook, HookPoint, Interface, device_hook
from tokenbucket.core.planning.capabilities import Capabilities, Degradation
from tokenbucket.core.planning.kept import kept_config
from tokenbucket.core.planning.plan import Wanted
from tokenbucket.core.planning.reasons import Reason


@dataclass(frozen=True, slots=True)
class PodInterfaces:
    """The interfaces of one pod, or the reason why the agent does not find any or all of them."""

    ends: Mapping[End, frozenset[Interface]] = field(default_factory=dict)
    """Both ends of veth interfaces: pod-side interfaces only if limits belong there. With a reason, the last
    known interfaces, or those that can be limited."""
    pod_only: frozenset[Interface] = frozenset()
    """Interfaces of other kinds, inside the pod: they have no end on the node."""
    reason: Reason | None = None
    message: str = ""
    no_queue: Mapping[Direction, Degradation] = field(default_factory=dict)
    """Why packets of a direction cannot be queued, so that Delay is degraded to Drop."""
    also_limited: Mapping[Direction, str] = field(default_factory=dict)
    """Who else limits the packets of a direction."""

    @property
    def found(self) -> bool:
        """Whether there is any interface."""
        return bool(self.ends or self.pod_only)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A reason why one limit is not enforced as declared."""

    key: SlotKey
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}: {self.message}"

    @property
    def of_limit(self) -> Deviation:
        """Return the deviation of a guard as one of its limit, which is enforced without the guard."""
        if not self.key.is_guard:
            return self
        text = f"guard: {self.message}; a pod that bypasses traffic control exceeds its limit"
        return Deviation(self.key.limit, Reason.NO_GUARD, text)


@dataclass(slots=True)
class Desired:
    """The limits that the agent enforces, and the deviations from their declarations."""

    wanted: dict[SlotKey, Wanted] = field(default_factory=dict)
    """Limits and their guards."""
    active: dict[SlotKey, ActiveLimit] = field(default_factory=dict)
    """Each limit as the agent enforces it."""
    deviations: list[Deviation] = field(default_factory=list)

    def add(self, other: Desired) -> None:
        """Add the limits of another pod."""
        self.wanted |= other.wanted
        self.active |= other.active
        self.deviations += other.deviations


@dataclass(slots=True)
class PodLimits:
    """Computes the limits of one pod."""

    pod: PodId
    located: PodInterfaces
    capabilities: Capabilities
    enforcement: Mode
    result: Desired = field(default_factory=Desired)

    def of(
        self,
        limits: Mapping[Direction, Policy],
        kept: Mapping[Direction, Slot],
        waits: AbstractSet[Direction],
    ) -> Desired:
        """Return the limits. ``waits`` are the directions whose packets are delayed, if they can be."""
        for direction, slot in kept.items():
            can_delay = direction in waits and not self._why_no_queue(direction)
            config = kept_config(slot.config, self.enforcement, can_delay=can_delay)
            self._place(replace(slot, config=config))
        for direction, policy in limits.items():
            no_queue = self._why_no_queue(direction) if direction in waits else None
            by_mode = self.enforcement is Mode.OBSERVE and policy.mode is not Mode.OBSERVE
            mode = Mode.OBSERVE if by_mode else policy.mode
            active = active_limit(policy.limits[direction], direction, no_queue, mode)
            if by_mode:
                active = replace(active, config=replace(active.config, observe_by_mode=True))
            self._add(SlotKey(self.pod, direction), policy, active)
        return self.result

    def _why_no_queue(self, direction: Direction) -> Degradation | None:
        if not self.located.found:
            return None
        hooks = self._hooks(direction, waits=True, queues=True)
        queued = sorted(interface for interface, hook in hooks.items() if hook is Hook.EGRESS)
        return self.located.no_queue.get(direction) or self.capabilities.why_not_delay(queued)

    def _add(self, key: SlotKey, policy: Policy, active: ActiveLimit) -> None:
        deviations, degradation = self.result.deviations, active.degradation
        if self.located.reason:
            deviations.append(Deviation(key, self.located.reason, self.located.message))
        if self.located.reason and not (self.located.reason.needs_slot or self.located.found):
            return
        for interface in sorted(self.located.pod_only):
            if why_not := self.capabilities.why_not_attach(interface):
                deviations.append(Deviation(key, Reason.INTERFACE_NOT_LIMITED, why_not))
        if degradation:
            deviations.append(Deviation(key, *degradation))
        if (other := self.located.also_limited.get(key.direction)) and not active.config.observe:
            deviations.append(Deviation(key, Reason.ALSO_LIMITED, other))
        self.result.active[key] = active
        self._place(Slot(Owner(key, policy.name, policy.generation), active.config))

    def _place(self, slot: Slot) -> None:
        """Add a limit with its hooks and its guard."""
        key, config = slot.owner.key, slot.config
        waits = config.max_delay_q > 0
        queues = waits and not config.observe
        points = self._points_at(self._hooks(key.direction, waits=waits, queues=queues))
        self.result.wanted[key] = Wanted(slot, points, queues)
        if key.direction is Direction.EGRESS:
            self._add_guard(slot)

    def _add_guard(self, limit: Slot) -> None:
        """Add the guard of a limit inside a pod, unless the pod's interfaces have no host side."""
        config = guard_of(limit.config)
        host_side = self.located.ends.get(End.HOST, frozenset())
        if config and (host_side or not (self.located.ends or self.located.pod_only)):
            key = limit.owner.key.guard
            slot = Slot(replace(limit.owner, key=key), config)
            self.result.wanted[key] = Wanted(slot, self._points_at(dict.fromkeys(host_side, Hook.INGRESS)))

    def _hooks(self, direction: Direction, *, waits: bool, queues: bool) -> dict[Interface, Hook]:
        """Return the hooks of a limit. ``queues`` is whether packets wait, not only in a count."""
        has_pod_side = bool(self.located.ends.get(End.POD))
        data_plane = self.capabilities.data_plane
        end, hook = data_plane.end_and_hook(direction, delays=waits, has_pod_side=has_pod_side)
        hooks = dict.fromkeys(self.located.ends.get(end, ()), hook)
        hooks |= dict.fromkeys(self._attachable(), device_hook(direction))
        if queues:  # behind an ingress hook there is no queue
            received = [interface for interface, hook in hooks.items() if hook is Hook.INGRESS]
            hooks |= {Interface(IFB, each.namespace): Hook.EGRESS for each in received}
        return hooks

    def _points_at(self, hooks: Mapping[Interface, Hook]) -> frozenset[HookPoint]:
        mechanism = self.capabilities.data_plane.mechanism
        return frozenset(HookPoint(each, hook, mechanism(each)) for each, hook in hooks.items())

    def _attachable(self) -> list[Interface]:
        """Return the interfaces without an end on the node that did not reject a filter."""
        return [each for each in self.located.pod_only if not self.capabilities.why_not_attach(each)]


@dataclass(slots=True)
class Memory:
    """The limits of each pod in the previous run."""

    _node: object = None
    """What all limits depend on."""
    _pods: dict[PodId, tuple[object, Desired]] = field(default_factory=dict)
    _previous: dict[PodId, tuple[object, Desired]] = field(default_factory=dict)

    def begin(self, node: object) -> None:
        """Begin a run. If ``node`` changed, forget the limits of all pods."""
        self._previous = self._pods if self._node == node else {}
        self._node, self._pods = node, {}

    def recall(self, pod: PodId, inputs: object, compute: Callable[[], Desired]) -> Desired:
        """Return the limits of a pod, which depend on ``inputs`` and the node alone."""
        known = self._previous.get(pod)
        if known is None or known[0] != inputs:
            known = (inputs, compute())
        self._pods[pod] = known
        return known[1]
