"""Which limits should be in force on this node, and why others are not: a pure function.

A pod's interfaces come from a function of its addresses, so that this module knows nothing of netlink.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from tokenbucket.core.bucket import bucket_of
from tokenbucket.core.hook import HookPoint, host_side_hook
from tokenbucket.core.plan import Wanted
from tokenbucket.core.pod import Pod
from tokenbucket.core.policy import Direction, ExceedAction, Limit, Policy
from tokenbucket.core.precedence import Winners
from tokenbucket.core.slot import Owner, Slot, SlotConfig, SlotKey, config_of

Address = IPv4Address | IPv6Address


class Reason(enum.StrEnum):
    """Why a limit is not in force, or not as declared. Part of the interface: see docs/operations.md."""

    NO_ADDRESS = "NoAddress"
    NO_INTERFACE = "NoInterface"
    HOST_NETWORK = "HostNetwork"
    ADDRESS_CONFLICT = "AddressConflict"
    NO_FREE_SLOT = "NoFreeSlot"
    NO_FQ = "NoFq"
    NOT_IMPLEMENTED = "NotImplemented"
    FOREIGN_FILTER = "ForeignFilter"
    CONTENDED = "Contended"


@dataclass(frozen=True, slots=True)
class Located:
    """The host-side interfaces of one pod, or the reason why there are none."""

    ifindexes: frozenset[int] = frozenset()
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one limit that its owner should know."""

    key: SlotKey
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}: {self.message}"


@dataclass(slots=True)
class Desired:
    """The limits that should be in force, and what is to be said about them."""

    wanted: dict[SlotKey, Wanted] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InForce:
    """What is done of a limit, and what is not."""

    config: SlotConfig
    shortfalls: tuple[tuple[Reason, str], ...]


Locate = Callable[[frozenset[Address]], Located]


def desired(policies: Iterable[Policy], pods: Iterable[Pod], locate: Locate) -> Desired:
    """The limits of all pods: for each pod and direction, that of the policy which wins there."""
    winners = Winners(policies)
    result = Desired()
    in_force: dict[tuple[str, Direction], InForce] = {}
    all_pods = tuple(pods)
    claims = Counter(address for pod in all_pods if not pod.host_network for address in pod.addresses)
    for pod in all_pods:
        limits = winners.of(pod)
        located = _place(pod, claims, locate) if limits else Located()
        for direction, policy in limits.items():
            # Worked out once for all pods of a policy: there may be hundreds.
            name = (str(policy), direction)
            if name not in in_force:
                in_force[name] = _in_force(policy, policy.limits[direction])
            _add(result, SlotKey(pod.id, direction), policy, in_force[name], located)
    return result


def _place(pod: Pod, claims: Counter[Address], locate: Locate) -> Located:
    if pod.host_network:
        return Located(
            reason=Reason.HOST_NETWORK, message="the pod has the node's own network; it is not limited"
        )
    if not pod.addresses:
        return Located(reason=Reason.NO_ADDRESS, message="the pod has no address yet, or has ended")
    shared = sorted(str(address) for address in pod.addresses if claims[address] > 1)
    if shared:
        text = f"{', '.join(shared)} is claimed by more than one pod"
        return Located(reason=Reason.ADDRESS_CONFLICT, message=text)
    return locate(pod.addresses)


def _add(result: Desired, key: SlotKey, policy: Policy, in_force: InForce, located: Located) -> None:
    if located.reason:
        result.findings.append(Finding(key, located.reason, located.message))
    if located.reason in {Reason.HOST_NETWORK, Reason.ADDRESS_CONFLICT, Reason.NO_ADDRESS}:
        return
    result.findings += (Finding(key, reason, message) for reason, message in in_force.shortfalls)
    hook = host_side_hook(key.direction)
    slot = Slot(Owner(key, policy.name, policy.generation), in_force.config)
    result.wanted[key] = Wanted(slot, frozenset(HookPoint(index, hook) for index in located.ifindexes))


def _in_force(policy: Policy, limit: Limit) -> InForce:
    mark = limit.exceed_action is ExceedAction.MARK
    bucket = bucket_of(limit, policy.mode, action_in_force=ExceedAction.MARK if mark else ExceedAction.DROP)
    return InForce(config_of(bucket, node_reserve=True), tuple(_shortfalls(limit)))


def _shortfalls(limit: Limit) -> Iterable[tuple[Reason, str]]:
    """What this version does not do of what the limit says."""
    if limit.exceed_action is ExceedAction.DELAY:
        yield Reason.NOT_IMPLEMENTED, "Delay is not implemented yet; Drop is in force"
    if limit.per_peer:
        yield Reason.NOT_IMPLEMENTED, "perPeer is not implemented yet; only the pod's own bucket is in force"
