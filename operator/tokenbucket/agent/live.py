"""The live figures of pods: their limits as the kernel has them now, and the reasons of the agent.

The agent reads the kernel only for a request, and once a minute for the counters of the last minute.
"""

from __future__ import annotations

import errno
import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenbucket import __version__
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.bpf.peers import Peers
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.api.live import VERSION, LiveRequest
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import SlotKey
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.attachment import HookPoint
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.status.node_status import NodeState
from tokenbucket.errors import IgnoreErrno
from tokenbucket.node.document import as_document, counters_of, fullness
from tokenbucket.node.snapshot import AttachPoint, GuardSnapshot, LimitSnapshot

_MINUTE_NS = 60 * 10**9


@dataclass(slots=True)
class LastMinute:
    """Earlier readings of the counters. At most two: one is at least a minute old, the other is younger."""

    _readings: list[tuple[int, Mapping[SlotKey, Stats]]] = field(default_factory=list)

    def record(self, now_ns: int, counters: Mapping[SlotKey, Stats]) -> None:
        """Add a reading."""
        self._readings = [*self._readings[-1:], (now_ns, counters)]

    def since(self, key: SlotKey, now_ns: int, now: Stats) -> dict[str, float]:
        """Return the increase of the counters since the newest reading that is at least a minute old.

        Empty if there is none, or if the slot was emptied in between.
        """
        old = [reading for reading in self._readings if now_ns - reading[0] >= _MINUTE_NS]
        if not old or key not in old[-1][1]:
            return {}
        at_ns, before = old[-1][0], counters_of(old[-1][1][key])
        increase = {name: value - before[name] for name, value in counters_of(now).items()}
        # A difference of two counters may decrease a little, because they are read one after the other.
        if increase["admittedPackets"] < 0:
            return {}
        return {"seconds": (now_ns - at_ns) / 10**9} | {name: max(0, n) for name, n in increase.items()}


@dataclass(slots=True)
class LiveFigures:
    """Reads the live figures. Use it from one thread at a time."""

    pins: Pins
    stats: ReconcileStats
    node: str
    minute: LastMinute = field(default_factory=LastMinute)
    _winners: tuple[NodeState | None, Winners] = (None, Winners(()))

    def record_minute(self) -> None:
        """Read the counters for the last minute. Raises KernelError and LoadError."""
        with IgnoreErrno(errno.ENOENT), Slots(self.pins) as slots:  # ENOENT: nothing is loaded
            counters = {slot.owner.key: stats for slot, stats in slots.read_with_stats()}
            self.minute.record(monotonic_ns(), counters)

    def answer(self, request: LiveRequest) -> dict[str, Any]:
        """Return the document with the requested pods that are on this node.

        Raises KernelError, and LoadError if other programs own the pins.
        """
        state = self.stats.state or NodeState()
        ids = {pod.id.uid: pod.id for pod in state.inputs.pods if pod.id.uid in request.uids}
        limits: dict[PodId, list[LimitSnapshot]] = defaultdict(list)
        with IgnoreErrno(errno.ENOENT), Slots(self.pins) as slots:
            for limit in self._read(slots, request, state):
                subject = limit.slot.owner.key.subject
                if isinstance(subject, PodId):
                    limits[subject].append(limit)
                    ids.setdefault(subject.uid, subject)
        return {
            "version": VERSION,
            "node": self.node,
            "agent": __version__,
            "enforcement": state.inputs.enforcement.value,
            "reconciled": self.stats.state is not None,
            "pods": [self._pod(pod, limits[pod], state, request) for pod in sorted(ids.values(), key=str)],
        }

    def _read(self, slots: Slots, request: LiveRequest, state: NodeState) -> Iterator[LimitSnapshot]:
        found = {
            slot.owner.key: (index, slot)
            for index, slot in slots.read().items()
            if isinstance(slot.owner.key.subject, PodId) and slot.owner.key.subject.uid in request.uids
        }
        points = state.outcome.points
        for key, (index, slot) in found.items():
            if key.is_guard:
                continue
            guard = None
            if beside := found.get(key.guard):
                places = _places(points.get(key.guard, frozenset()))
                guard = GuardSnapshot(*beside, places, slots.stats(beside[0]))
            wants_peers = bool(request.peers and slot.config.per_peer)
            yield LimitSnapshot(
                index,
                slot,
                _places(points.get(key, frozenset())),
                slots.meters(index),
                slots.stats(index),
                monotonic_ns(),
                self._peers(slots, index) if wants_peers else (),
                guard,
            )

    def _peers(self, slots: Slots, index: int) -> tuple[Any, ...]:
        with Peers(self.pins) as peers:
            return tuple(peers.of(index, slots.peers_epoch(index)))

    def _pod(
        self, pod: PodId, limits: list[LimitSnapshot], state: NodeState, request: LiveRequest
    ) -> dict[str, Any]:
        names = {
            place.interface
            for limit in limits
            for place in (*limit.places, *(limit.guard.places if limit.guard else ()))
        }
        foreign = (each for each in state.outcome.foreign_programs if each.interface in names)
        return {
            "uid": pod.uid,
            "namespace": pod.namespace,
            "pod": pod.name,
            "policies": self._policies(pod, state),
            "limits": [
                self._limit(limit, state, request.peers)
                for limit in sorted(limits, key=lambda limit: limit.slot.owner.key.direction)
            ],
            "reasons": [
                {
                    "direction": deviation.key.direction.value,
                    "reason": deviation.reason.value,
                    "effect": deviation.reason.effect.value,
                    "message": deviation.message,
                }
                for deviation in state.outcome.deviations
                if deviation.key.subject == pod
            ],
            "foreignPrograms": [str(each) for each in sorted(foreign)],
        }

    def _policies(self, pod_id: PodId, state: NodeState) -> dict[str, str]:
        """Return the names of the policies that apply to a pod, by direction."""
        if self._winners[0] is not state:
            self._winners = state, Winners(state.inputs.policies)
        found = next((pod for pod in state.inputs.pods if pod.id == pod_id), None)
        winners = self._winners[1].of(found) if found else {}
        return {direction.value: policy.name for direction, policy in winners.items()}

    def _limit(self, limit: LimitSnapshot, state: NodeState, most_peers: int) -> dict[str, Any]:
        key = limit.slot.owner.key
        active = state.outcome.active.get(key)
        document = as_document(limit) | {"monotonicNanoseconds": limit.now_ns, "active": active is not None}
        for known in ("namespace", "pod", "slot"):
            document.pop(known)
        if active:
            document |= {"effective": active.text, "action": active.action}
        if minute := self.minute.since(key, limit.now_ns, limit.stats):
            document["lastMinute"] = minute
        if offered := self.stats.offered(key):
            document["offered"] = offered.as_document()
        if limit.peers:
            document["peers"] = _busiest(limit, most_peers)
        return document


def _busiest(limit: LimitSnapshot, most: int) -> list[dict[str, Any]]:
    """Return the peers with the fewest tokens."""
    config, now_q = limit.slot.config.per_peer, gcra.word_of(limit.now_ns)
    if not config:
        return []
    tokens = {str(peer): fullness(peer, config, now_q) for peer in limit.peers}
    emptiest = sorted(tokens, key=lambda peer: (tokens[peer], peer))[:most]
    return [{"peer": peer, "tokensOfBurst": round(tokens[peer], 3)} for peer in emptiest]


def _places(points: Collection[HookPoint]) -> tuple[AttachPoint, ...]:
    return tuple(sorted(map(_place, points)))


def _place(point: HookPoint) -> AttachPoint:
    interface, in_pod = point.interface, bool(point.interface.namespace)
    if interface.is_ifb:
        name = "ifb device of the pod"
    elif in_pod:
        name = f"interface {interface.ifindex} of the pod"
    else:
        name = _name_on_node(interface.ifindex)
    return AttachPoint(name, point.hook, point.mechanism, in_pod)


def _name_on_node(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:  # it is gone
        return f"interface {ifindex}"
