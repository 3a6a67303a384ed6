"""The JSON document of a limit, in the output of ``tokenbucket status`` and in the agent's live figures.

Field names are part of the interface.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from tokenbucket.bpf.peers import Peer
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import ExceedAction
from tokenbucket.core.limits import dry_run, gcra
from tokenbucket.core.limits.slot import PeerConfig, Slot, SlotConfig
from tokenbucket.core.limits.stats import EXPOSED, Stats
from tokenbucket.node.snapshot import AttachPoint, GuardSnapshot, LimitSnapshot

_KEYS = tuple(counter.key for counter in EXPOSED if counter.key)
_VALUES = operator.attrgetter(*(counter.counter for counter in EXPOSED if counter.key))


def action_of(config: SlotConfig) -> str:
    """Return the enforcement action: Delay, Drop or Mark."""
    if config.dscp is not None:
        return ExceedAction.MARK.value
    return ExceedAction.DELAY.value if config.max_delay_q else ExceedAction.DROP.value


def tokens(limit: LimitSnapshot) -> tuple[int, int | None]:
    """Return the tokens in bytes and packets, negative in debt. Packets are ``None`` if not metered."""
    config, now_q = limit.slot.config, gcra.word_of(limit.now_ns)
    size_bytes, packets = 0, None
    if config.bits_per_s:
        size_bytes = gcra.bytes_in(
            gcra.tokens_q(limit.meters.bytes_tat, now_q, config.bytes_burst_q), config.bits_per_s
        )
    if config.packets_per_s:
        time_q = gcra.tokens_q(limit.meters.packets_tat, now_q, config.packets_burst_q)
        packets = gcra.packets_in(time_q, config.packets_per_s)
    return size_bytes, packets


def _wait_ns(limit: LimitSnapshot) -> int:
    """Return the time until the tokens pay for the packets that were admitted: the length of the queue."""
    config, now_q = limit.slot.config, gcra.word_of(limit.now_ns)
    meters = (
        (config.bits_per_s, limit.meters.bytes_tat, config.bytes_burst_q),
        (config.packets_per_s, limit.meters.packets_tat, config.packets_burst_q),
    )
    debts_q = (-gcra.tokens_q(tat, now_q, burst_q) for rate, tat, burst_q in meters if rate)
    return max(0, *debts_q, 0) // gcra.QUANTA_PER_NS


def as_document(limit: LimitSnapshot) -> dict[str, Any]:
    """Return the state of one limit."""
    owner = limit.slot.owner
    subject = owner.key.subject
    name = (
        {"namespace": subject.namespace, "pod": subject.name}
        if isinstance(subject, PodId)
        else {"device": subject.name}
    )
    return name | {"slot": limit.index} | declared(limit.slot, limit.places) | current(limit)


def declared(slot: Slot, places: Iterable[AttachPoint]) -> dict[str, Any]:
    """Return the fields that change only with the limit and its places."""
    owner, config = slot.owner, slot.config
    document: dict[str, Any] = {
        "direction": owner.key.direction.value,
        "policy": owner.policy,
        "policyGeneration": owner.generation,
        "mode": "Observe" if config.observe else "Enforce",
        "exceedAction": action_of(config),
        "hooks": _hooks(places),
    }
    if config.bits_per_s:
        document |= {"bitsPerSecond": config.bits_per_s, "burstBytes": config.burst_bytes}
    if config.packets_per_s:
        document |= {"packetsPerSecond": config.packets_per_s, "burstPackets": config.burst_packets}
    if config.per_peer:
        document["perPeer"] = _peer_document(config.per_peer)
    return document


def current(limit: LimitSnapshot) -> dict[str, Any]:
    """Return what changes with each packet."""
    config, document = limit.slot.config, counters_of(limit.stats)
    tokens_bytes, tokens_packets = tokens(limit)
    further: dict[str, Any] = {}
    if config.bits_per_s:
        further["tokensBytes"] = tokens_bytes
    if config.packets_per_s:
        further["tokensPackets"] = tokens_packets
    if config.max_delay_q:
        further["waitNanoseconds"] = _wait_ns(limit)
    if would := dry_run.shares(config, limit.stats):
        further["dryRunShares"] = would
    if limit.guard:
        further["guard"] = _guard_document(limit.guard)
    return document | further


def counters_of(stats: Stats) -> dict[str, int]:
    """Return the counters of a limit."""
    return dict(zip(_KEYS, _VALUES(stats), strict=True))


def fullness(peer: Peer, config: PeerConfig, now_q: int) -> float:
    """Return the tokens of the emptier meter as a fraction of the burst. Negative in debt."""
    meters = ((peer.bytes_tat, config.bytes_burst_q), (peer.packets_tat, config.packets_burst_q))
    return min(gcra.tokens_q(tat, now_q, burst_q) / burst_q for tat, burst_q in meters if burst_q)


def _hooks(places: Iterable[AttachPoint]) -> list[dict[str, str]]:
    return [
        {"interface": place.interface, "hook": place.hook.value, "attachment": str(place)} for place in places
    ]


def _guard_document(guard: GuardSnapshot) -> dict[str, Any]:
    config, stats = guard.slot.config, guard.stats
    document: dict[str, Any] = {"slot": guard.index, "hooks": _hooks(guard.places)}
    if config.bits_per_s:
        document["burstBytes"] = config.burst_bytes
    if config.packets_per_s:
        document["burstPackets"] = config.burst_packets
    return document | {"droppedPackets": stats.dropped_packets, "droppedBytes": stats.dropped_bytes}


def _peer_document(config: PeerConfig) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ipv4PrefixLength": config.ipv4_prefix_length,
        "ipv6PrefixLength": config.ipv6_prefix_length,
    }
    if config.bits_per_s:
        document |= {"bitsPerSecond": config.bits_per_s, "burstBytes": config.burst_bytes}
    if config.packets_per_s:
        document |= {"packetsPerSecond": config.packets_per_s, "burstPackets": config.burst_packets}
    return document
