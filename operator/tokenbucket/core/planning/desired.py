"""Compute the limits that this node enforces, and the reasons why it does not enforce others.

A function argument finds the interfaces of a pod, so that this module does not depend on netlink.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from tokenbucket.core.api.annotations import NAME as OF_ANNOTATIONS
from tokenbucket.core.api.pod import Pod, PodId
from tokenbucket.core.api.policy import Direction, Mode, Policy
from tokenbucket.core.limits.guard import guard_of
from tokenbucket.core.limits.slot import Owner, Slot, SlotKey
from tokenbucket.core.planning.active_limit import ActiveLimit, active_limit, delays
from tokenbucket.core.planning.attachment import IFB, End, Hook, HookPoint, Interface, device_hook
from tokenbucket.core.planning.capabilities import Capabilities, Degradation
from tokenbucket.core.planning.kept import NodeSettings, kept_config
from tokenbucket.core.planning.plan import Wanted
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.planning.reasons import Reason

Address = IPv4Address | IPv6Address

_IN_A_MACHINE = Degradation(
    Reason.NO_FILTER_IN_POD,
    "pod: has an overhead and may run in a virtual machine; excess packets are dropped",
)


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


@dataclass(frozen=True, slots=True)
class Search:
    """A pod to be located, and the reasons to read more than the node's ends of its interfaces."""

    pod: PodId
    addresses: frozenset[Address]
    waits: AbstractSet[Direction]
    """The directions whose packets are delayed, if they can be."""
    enter: bool
    """Whether a limit belongs inside the pod, whatever its interfaces are."""
    may_enter: bool = True
    """Whether a limit may be attached inside the pod."""
    annotated: AbstractSet[Direction] = frozenset()
    """The directions with a limit of annotations."""


Locate = Callable[[Search], PodInterfaces]
"""Finds the interfaces of a pod."""


def desired(
    policies: Iterable[Policy],
    pods: Iterable[Pod],
    locate: Locate,
    capabilities: Capabilities,
    settings: NodeSettings | None = None,
) -> Desired:
    """Return the limits of all pods: for each pod and direction, the limit of the winning policy.

    With the mode Observe, all limits only count. With Off, all limits keep their slots and tokens, and no
    filter is attached. A kept limit has precedence over annotations, and other policies over it.
    """
    settings = settings or NodeSettings()
    running, winners = tuple(pod for pod in pods if not pod.ended), Winners(policies)
    claims = Counter(address for pod in running if not pod.host_network for address in pod.addresses)
    builder = _Builder(locate, capabilities, settings.mode, claims)
    for pod in running:
        limits = winners.of(pod)
        left = {
            each: slot
            for each, slot in settings.kept.get(pod.id, {}).items()
            if not _has_policy(limits, each)
        }
        builder.add_pod(pod, {each: policy for each, policy in limits.items() if each not in left}, left)
        builder.result.deviations += _invalid_annotations(pod, limits)
    if settings.mode is Mode.OFF:
        return _nowhere(builder.result)
    _give_each_point_to_one(builder.result)
    return builder.result


@dataclass(slots=True)
class _Builder:
    """Collects the limits of one pod after the other."""

    locate: Locate
    capabilities: Capabilities
    enforcement: Mode
    claims: Counter[Address]
    """The number of pods that have an address."""
    result: Desired = field(default_factory=Desired)

    def add_pod(self, pod: Pod, limits: Mapping[Direction, Policy], kept: Mapping[Direction, Slot]) -> None:
        """Add the limits of a pod."""
        if not (limits or kept):
            return
        waits = {direction for direction, policy in limits.items() if delays(policy.limits[direction])}
        waits |= {direction for direction, slot in kept.items() if slot.config.max_delay_q}
        located = self._locate(pod, [*limits, *kept], waits)
        for direction, slot in kept.items():
            can_delay = direction in waits and not self._why_no_queue(direction, located)
            config = kept_config(slot.config, self.enforcement, can_delay=can_delay)
            self._place(replace(slot, config=config), located)
        for direction, policy in limits.items():
            no_queue = self._why_no_queue(direction, located) if direction in waits else None
            by_mode = self.enforcement is Mode.OBSERVE and policy.mode is not Mode.OBSERVE
            mode = Mode.OBSERVE if by_mode else policy.mode
            active = active_limit(policy.limits[direction], direction, no_queue, mode)
            active = replace(active, config=replace(active.config, observe_by_mode=by_mode))
            self._add(SlotKey(pod.id, direction), policy, active, located)

    def _locate(self, pod: Pod, limits: Iterable[Direction], waits: AbstractSet[Direction]) -> PodInterfaces:
        if pod.host_network:
            message = (
                "pod: uses the network of the node and is exempt; to limit it, create it without hostNetwork"
            )
            return PodInterfaces(reason=Reason.HOST_NETWORK, message=message)
        if not pod.addresses:
            message = "pod: has no address yet; wait until its network is ready"
            return PodInterfaces(reason=Reason.NO_ADDRESS, message=message)
        # Pods on independent secondary networks can share an address, beside the addresses of their own.
        own = frozenset(address for address in pod.addresses if self.claims[address] == 1)
        if not own:
            shared = ", ".join(sorted(map(str, pod.addresses)))
            message = f"{shared}: belongs to several pods; give each pod its own address"
            return PodInterfaces(reason=Reason.ADDRESS_CONFLICT, message=message)
        enters = not pod.has_overhead and any(self._enters(each, each in waits) for each in limits)
        annotated = pod.annotated.policy.limits.keys() if pod.annotated else frozenset[Direction]()
        located = self.locate(Search(pod.id, own, waits, enters, not pod.has_overhead, annotated))
        if not (located.ends and pod.has_overhead):
            return located
        return replace(located, no_queue={**located.no_queue, Direction.EGRESS: _IN_A_MACHINE})

    def _enters(self, direction: Direction, waits: bool) -> bool:  # noqa: FBT001
        """Return whether the limit belongs inside the pod."""
        delays = waits and self.capabilities.fq
        end, _ = self.capabilities.data_plane.end_and_hook(direction, delays=delays, has_pod_side=True)
        return end is End.POD

    def _why_no_queue(self, direction: Direction, located: PodInterfaces) -> Degradation | None:
        if not located.found:
            return None
        hooks = self._hooks(direction, located, waits=True, queues=True)
        queued = sorted(interface for interface, hook in hooks.items() if hook is Hook.EGRESS)
        return located.no_queue.get(direction) or self.capabilities.why_not_delay(queued)

    def _add(self, key: SlotKey, policy: Policy, active: ActiveLimit, located: PodInterfaces) -> None:
        deviations, degradation = self.result.deviations, active.degradation
        if located.reason:
            deviations.append(Deviation(key, located.reason, located.message))
        if located.reason and not (located.reason.needs_slot or located.found):
            return
        for interface in sorted(located.pod_only):
            if why_not := self.capabilities.why_not_attach(interface):
                deviations.append(Deviation(key, Reason.INTERFACE_NOT_LIMITED, why_not))
        if degradation:
            deviations.append(Deviation(key, *degradation))
        if (other := located.also_limited.get(key.direction)) and not active.config.observe:
            deviations.append(Deviation(key, Reason.ALSO_LIMITED, other))
        self.result.active[key] = active
        self._place(Slot(Owner(key, policy.name, policy.generation), active.config), located)

    def _place(self, slot: Slot, located: PodInterfaces) -> None:
        """Add a limit with its hooks and its guard."""
        key, config = slot.owner.key, slot.config
        waits = config.max_delay_q > 0
        queues = waits and not config.observe
        points = self._points_at(self._hooks(key.direction, located, waits=waits, queues=queues))
        self.result.wanted[key] = Wanted(slot, points, queues)
        if key.direction is Direction.EGRESS:
            self._add_guard(slot, located)

    def _add_guard(self, limit: Slot, located: PodInterfaces) -> None:
        """Add the guard of a limit inside a pod, unless the pod's interfaces have no host side."""
        config = guard_of(limit.config)
        host_side = located.ends.get(End.HOST, frozenset())
        if config and (host_side or not (located.ends or located.pod_only)):
            key = limit.owner.key.guard
            slot = Slot(replace(limit.owner, key=key), config)
            self.result.wanted[key] = Wanted(slot, self._points_at(dict.fromkeys(host_side, Hook.INGRESS)))

    def _hooks(
        self, direction: Direction, located: PodInterfaces, *, waits: bool, queues: bool
    ) -> dict[Interface, Hook]:
        """Return the hooks of a limit. ``queues`` is whether packets wait, not only in a count."""
        has_pod_side = bool(located.ends.get(End.POD))
        data_plane = self.capabilities.data_plane
        end, hook = data_plane.end_and_hook(direction, delays=waits, has_pod_side=has_pod_side)
        hooks = dict.fromkeys(located.ends.get(end, ()), hook)
        hooks |= dict.fromkeys(self._attachable(located), device_hook(direction))
        if queues:  # behind an ingress hook there is no queue
            received = [interface for interface, hook in hooks.items() if hook is Hook.INGRESS]
            hooks |= {Interface(IFB, each.namespace): Hook.EGRESS for each in received}
        return hooks

    def _points_at(self, hooks: Mapping[Interface, Hook]) -> frozenset[HookPoint]:
        mechanism = self.capabilities.data_plane.mechanism
        return frozenset(HookPoint(each, hook, mechanism(each)) for each, hook in hooks.items())

    def _attachable(self, located: PodInterfaces) -> list[Interface]:
        """Return the interfaces without an end on the node that did not reject a filter."""
        return [each for each in located.pod_only if not self.capabilities.why_not_attach(each)]


def _give_each_point_to_one(result: Desired) -> None:
    """If several pods are found behind one interface, keep only the limit of the first pod by name."""
    keys: dict[HookPoint, list[SlotKey]] = defaultdict(list)
    for key, wanted in result.wanted.items():
        for point in wanted.points:
            keys[point].append(key.limit)
    for contenders in (each for each in keys.values() if len(each) > 1):
        left = sorted((key for key in contenders if key in result.wanted), key=str)
        for key in left[1:]:
            text = f"pod: has the same interface as {left[0].subject}; check the addresses of both pods"
            result.deviations.append(Deviation(key, Reason.ADDRESS_CONFLICT, text))
            del result.wanted[key]
            result.active.pop(key, None)  # a kept limit is not among them
            result.wanted.pop(key.guard, None)


def _has_policy(limits: Mapping[Direction, Policy], direction: Direction) -> bool:
    return direction in limits and limits[direction].name != OF_ANNOTATIONS


def _nowhere(result: Desired) -> Desired:
    wanted = {key: Wanted(each.slot, frozenset()) for key, each in result.wanted.items()}
    return Desired(wanted, result.active)


def _invalid_annotations(pod: Pod, limits: Mapping[Direction, Policy]) -> Iterator[Deviation]:
    """Yield the problems of a pod's annotations, for the directions without a policy."""
    if pod.annotated:
        for direction, problem in pod.annotated.problems.items():
            if limits.get(direction, pod.annotated.policy) is pod.annotated.policy:
                yield Deviation(SlotKey(pod.id, direction), Reason.INVALID_ANNOTATION, problem)
