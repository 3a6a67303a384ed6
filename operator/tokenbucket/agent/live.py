"""The live figures of pods: their limits as the kernel has them now, and the reasons of the agent.

The agent reads the kernel only for a request, and once a minute for the counters of the last minute.
"""

from __future__ import annotations

import errno
import heapq
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

from tokenbucket import __version__
from tokenbucket.agent.reconcile_stats import ReconcileStats
from tokenbucket.bpf.peers import Peer, Peers
from tokenbucket.bpf.pins import Pins
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.api.live import VERSION, LiveRequest
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import Role, Slot, SlotKey, Subject
from tokenbucket.core.limits.stats import Stats
from tokenbucket.core.planning.attachment import HookPoint
from tokenbucket.core.planning.pod_limits import Deviation
from tokenbucket.core.planning.precedence import Winners
from tokenbucket.core.status.node_status import NodeState
from tokenbucket.errors import IgnoreErrno
from tokenbucket.node.document import counters_of, current, declared, fullness
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


@dataclass(frozen=True, slots=True)
class _Limit:
    slot: Slot
    places: tuple[AttachPoint, ...]
    document: Mapping[str, Any]


class _StateIndex:
    """The last state of the agent by pod, and the parts of documents that change only with the state."""

    def __init__(self, state: NodeState | None) -> None:
        self.state = state
        self.outcome, self.inputs = (state or NodeState()).outcome, (state or NodeState()).inputs
        self.pods = {pod.id.uid: pod for pod in self.inputs.pods if pod.id.uid}
        self._winners = Winners(self.inputs.policies)
        self._reasons: dict[Subject, list[Deviation]] = defaultdict(list)
        for deviation in self.outcome.deviations:
            self._reasons[deviation.key.subject].append(deviation)
        self._heads: dict[str, dict[str, Any]] = {}
        self._limits: dict[int, _Limit] = {}

    def head(self, pod: PodId, limits: list[LimitSnapshot]) -> dict[str, Any]:
        """Return the document of a pod without its limits."""
        if pod.uid not in self._heads:
            self._heads[pod.uid] = self._read_head(pod, limits)
        return self._heads[pod.uid]

    def _read_head(self, pod: PodId, limits: list[LimitSnapshot]) -> dict[str, Any]:
        known = self.pods.get(pod.uid)
        winners = self._winners.of(known) if known else {}
        guards = (limit.guard.places for limit in limits if limit.guard)
        places = chain(*(limit.places for limit in limits), *guards)
        names = {place.interface for place in places}
        foreign = sorted(each for each in self.outcome.foreign_programs if each.interface in names)
        return {
            "uid": pod.uid,
            "namespace": pod.namespace,
            "pod": pod.name,
            "policies": {direction.value: policy.name for direction, policy in winners.items()},
            "reasons": [_reason_document(each) for each in self._reasons.get(pod, ())],
            "foreignPrograms": [str(each) for each in foreign],
        }

    def limit(self, number: int, slot: Slot) -> _Limit:
        """Return the place and the document of a limit or guard, which do not change with packets."""
        known = self._limits.get(number)
        # The decoder returns the same objects for the same bytes.
        if not known or known.slot.owner is not slot.owner or known.slot.config is not slot.config:
            known = self._limits[number] = self._read_limit(slot)
        return known

    def _read_limit(self, slot: Slot) -> _Limit:
        key = slot.owner.key
        active = self.outcome.active.get(key)
        places = tuple(sorted(map(_place, self.outcome.points.get(key, ()))))
        document = declared(slot, places) | {"active": active is not None}
        if active:
            document |= {"effective": active.text, "action": active.action}
        return _Limit(slot, places, document)


@dataclass(slots=True)
class LiveFigures:
    """Reads the live figures. Use it from one thread at a time."""

    pins: Pins
    stats: ReconcileStats
    node: str
    minute: LastMinute = field(default_factory=LastMinute)
    _index: _StateIndex = field(default_factory=lambda: _StateIndex(None))

    def record_minute(self) -> None:
        """Read the counters for the last minute. Raises KernelError and LoadError."""
        with IgnoreErrno(errno.ENOENT), Slots(self.pins) as slots:  # ENOENT: nothing is loaded
            counters = {slot.owner.key: stats for slot, stats in slots.read_with_stats()}
            self.minute.record(monotonic_ns(), counters)

    def answer(self, request: LiveRequest) -> dict[str, Any]:
        """Return the document with the requested pods that are on this node.

        Raises KernelError, and LoadError if other programs own the pins.
        """
        state = self.stats.current
        if self._index.state is not state:
            self._index = _StateIndex(state)
        index = self._index
        ids = {uid: index.pods[uid].id for uid in request.uids if uid in index.pods}
        limits: dict[PodId, list[LimitSnapshot]] = defaultdict(list)
        with IgnoreErrno(errno.ENOENT), Slots(self.pins) as slots:
            for limit in self._read(slots, request):
                subject = limit.slot.owner.key.subject
                if isinstance(subject, PodId):
                    limits[subject].append(limit)
                    ids.setdefault(subject.uid, subject)
        return {
            "version": VERSION,
            "node": self.node,
            "agent": __version__,
            "enforcement": index.inputs.enforcement.value,
            "reconciled": index.state is not None,
            "pods": [
                index.head(pod, limits[pod])
                | {"limits": [self._limit(limit, request) for limit in limits[pod]]}
                for pod in sorted(ids.values(), key=str)
            ],
        }

    def _read(self, slots: Slots, request: LiveRequest) -> Iterator[LimitSnapshot]:
        found: dict[Role, dict[tuple[str, Direction], tuple[int, Slot]]] = {role: {} for role in Role}
        for number, slot in slots.read().items():
            key = slot.owner.key
            if isinstance(key.subject, PodId) and key.subject.uid in request.uids:
                found[key.role][key.subject.uid, key.direction] = number, slot
        for name, (number, slot) in sorted(found[Role.LIMIT].items(), key=lambda item: item[0]):
            guard = None
            if beside := found[Role.GUARD].get(name):
                guard = GuardSnapshot(*beside, self._index.limit(*beside).places, slots.stats(beside[0]))
            wants_peers = bool(request.peers and slot.config.per_peer)
            yield LimitSnapshot(
                number,
                slot,
                self._index.limit(number, slot).places,
                slots.meters(number),
                slots.stats(number),
                monotonic_ns(),
                self._peers(slots, number) if wants_peers else (),
                guard,
            )

    def _peers(self, slots: Slots, number: int) -> tuple[Peer, ...]:
        with Peers(self.pins) as peers:
            return tuple(peers.of(number, slots.peers_epoch(number)))

    def _limit(self, limit: LimitSnapshot, request: LiveRequest) -> dict[str, Any]:
        document = {**self._index.limit(limit.index, limit.slot).document, **current(limit)}
        document["monotonicNanoseconds"] = limit.now_ns
        if request.minute and (minute := self.minute.since(limit.slot.owner.key, limit.now_ns, limit.stats)):
            document["lastMinute"] = minute
        if offered := self.stats.offered(limit.slot.owner.key):
            document["offered"] = offered.as_document()
        if limit.peers:
            document["peers"] = _busiest(limit, request.peers)
        return document


def _reason_document(deviation: Deviation) -> dict[str, str]:
    return {
        "direction": deviation.key.direction.value,
        "reason": deviation.reason.value,
        "effect": deviation.reason.effect.value,
        "message": deviation.message,
    }


def _busiest(limit: LimitSnapshot, most: int) -> list[dict[str, Any]]:
    """Return the peers with the fewest tokens."""
    config, now_q = limit.slot.config.per_peer, gcra.word_of(limit.now_ns)
    if not config:
        return []
    tokens = ((fullness(peer, config, now_q), peer) for peer in limit.peers)
    emptiest = heapq.nsmallest(most, tokens, key=itemgetter(0))
    return [{"peer": str(peer), "tokensOfBurst": round(share, 3)} for share, peer in emptiest]


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
