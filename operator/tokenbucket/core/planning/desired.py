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
from tokenbucket.core.limits.slot import Slot, SlotKey
from tokenbucket.core.planning.active_limit import delays
from tokenbucket.core.planning.attachment import End, HookPoint
from tokenbucket.core.planning.capabilities import Capabilities, Degradation
from tokenbucket.core.planning.kept import NodeSettings
from tokenbucket.core.planning.plan import Wanted
from tokenbucket.core.planning.pod_limits import Desired, Deviation, Memory, PodInterfaces, PodLimits
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.planning.reasons import Reason

Address = IPv4Address | IPv6Address

_IN_A_MACHINE = Degradation(
    Reason.NO_FILTER_IN_POD,
    "pod: has an overhead and may run in a virtual machine; excess packets are dropped",
)


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


def desired(  # noqa: PLR0913 - all but the last decide about the result
    policies: Iterable[Policy],
    pods: Iterable[Pod],
    locate: Locate,
    capabilities: Capabilities,
    settings: NodeSettings | None = None,
    memory: Memory | None = None,
) -> Desired:
    """Return the limits of all pods: for each pod and direction, the limit of the winning policy.

    With the mode Observe, all limits only count. With Off, all limits keep their slots and tokens, and no
    filter is attached. A kept limit has precedence over annotations, and other policies over it.
    """
    settings, memory = settings or NodeSettings(), memory or Memory()
    memory.begin((capabilities, settings.mode))
    running, winners = tuple(pod for pod in pods if not pod.ended), Winners(policies)
    claims = Counter(address for pod in running if not pod.host_network for address in pod.addresses)
    builder = _Builder(locate, memory, capabilities, settings.mode, claims)
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
    memory: Memory
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

        def compute() -> Desired:
            builder = PodLimits(pod.id, located, self.capabilities, self.enforcement)
            return builder.of(limits, kept, waits)

        self.result.add(self.memory.recall(pod.id, (limits, kept, located), compute))

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
