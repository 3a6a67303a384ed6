"""What a slot of the kernel's maps holds, as immutable values: whose it is, and how it is configured."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TypeVar

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction, ExceedAction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.bucket import Bucket, PeerBucket
from tokenbucket.core.limits.queue_bound import SUPER_BYTES

NO_SLOT = 0
"""``TB_NO_SLOT`` of ``layout.h``: its counters count packets whose filter names no slot in use."""
RESERVE_BITS_PER_S = 10**6
"""Upper bound of the reserve for the node's own packets; it is otherwise a tenth of the rate."""
RESERVE_BURST_BYTES = 16 * 1024
SMALLEST_BYTES = 42
"""Size of an ARP packet on a veth, which adds no padding."""
_SUPER_SEGMENTS = 64


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """An interface limited by hand. An inode of 0 is the namespace of whoever reads."""

    netns_inode: int
    name: str

    def __str__(self) -> str:
        return self.name


Subject = PodId | DeviceId


@dataclass(frozen=True, slots=True)
class SlotKey:
    """Identity of a limit: one bucket for each subject and direction, however many interfaces it has."""

    subject: Subject
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject} {self.direction}"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose slot it is, and which policy says so."""

    key: SlotKey
    policy: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """Two meters. A rate of 0 is a meter not in use; bursts are times at the rate, in quanta."""

    bits_per_s: int = 0
    bytes_burst_q: int = 0
    packets_per_s: int = 0
    packets_burst_q: int = 0

    @property
    def burst_bytes(self) -> int:
        """Depth of the byte bucket."""
        return gcra.bytes_in(self.bytes_burst_q, self.bits_per_s) if self.bits_per_s else 0

    @property
    def burst_packets(self) -> int:
        """Depth of the packet bucket."""
        return gcra.packets_in(self.packets_burst_q, self.packets_per_s) if self.packets_per_s else 0


@dataclass(frozen=True, slots=True)
class RateChange:
    """A change of one meter's rate."""

    meter: str
    """The meter's word in ``struct tb_meters``."""
    scales: tuple[int, int]
    """Before and after the change."""
    max_debt_q: int
    """The longest debt of the meter after the change, in quanta."""


Config = TypeVar("Config", bound=BucketConfig)


@dataclass(frozen=True, slots=True)
class PeerConfig(BucketConfig):
    """The bucket of each peer of a slot."""

    ipv4_prefix_length: int = 32
    ipv6_prefix_length: int = 64
    is_destination: bool = False
    """The peer is where a packet goes to; else where it comes from."""


@dataclass(frozen=True, slots=True)
class SlotConfig(BucketConfig):
    """How a slot is limited."""

    reserve_bits_per_s: int = 0
    reserve_burst_q: int = 0
    dscp: int | None = None
    """What exceeds is forwarded with this code point instead of being dropped."""
    max_delay_q: int = 0
    """What exceeds waits for up to so long for its departure time; 0 where it does not wait."""
    observe: bool = False
    node_reserve: bool = False
    per_peer: PeerConfig | None = None

    @property
    def longest_debts_q(self) -> tuple[int, int]:
        """How far ahead of the clock the byte meter and the packet meter may run: small packets behind half
        as much again as the longest delay, and a super-packet.
        """
        ahead_q = self.max_delay_q * 3 // 2
        return (
            ahead_q + gcra.bytes_cost_q(SUPER_BYTES, self.bits_per_s),
            ahead_q + gcra.packets_cost_q(_SUPER_SEGMENTS, self.packets_per_s),
        )

    def changes_of_rates(self, before: SlotConfig) -> tuple[RateChange, ...]:
        """Return the changes of the meters whose rates differ from those of ``before``."""
        return _changes_of_rates(before, self)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot in use."""

    owner: Owner
    config: SlotConfig


@functools.lru_cache(maxsize=64)
def _changes_of_rates(before: SlotConfig, after: SlotConfig) -> tuple[RateChange, ...]:
    """Return the changes, cached because all pods of a policy change in the same way."""
    bytes_q, packets_q = after.longest_debts_q
    of_bytes = gcra.bytes_scale(before.bits_per_s), gcra.bytes_scale(after.bits_per_s)
    of_packets = gcra.packets_scale(before.packets_per_s), gcra.packets_scale(after.packets_per_s)
    changes = (
        RateChange("bytes_tat", of_bytes, bytes_q),
        RateChange("packets_tat", of_packets, packets_q),
    )
    return tuple(change for change in changes if change.scales[0] != change.scales[1])


def config_of(bucket: Bucket, direction: Direction, *, node_reserve: bool) -> SlotConfig:
    """Return the kernel's configuration of a bucket.

    ``node_reserve`` lets the node's own packets use the reserve: right for pods, wrong for a device,
    where all that the machine sends is its own.
    """
    reserve = _reserve_bits_per_s(bucket)
    config = SlotConfig(
        reserve_bits_per_s=reserve,
        reserve_burst_q=gcra.bytes_time_q(RESERVE_BURST_BYTES, reserve),
        dscp=bucket.dscp if bucket.action is ExceedAction.MARK else None,
        max_delay_q=(bucket.max_delay_ns or 0) * gcra.QUANTA_PER_NS,
        observe=bucket.observe,
        node_reserve=node_reserve,
        per_peer=_peer_config(bucket.per_peer, direction) if bucket.per_peer else None,
    )
    return _with_meters(config, bucket)


def _reserve_bits_per_s(bucket: Bucket) -> int:
    """Return a tenth of each rate, of the packet rate in the smallest packets: the reserve is charged to both
    meters, and must not bring one of them further and further into debt.
    """
    rates = [10 * RESERVE_BITS_PER_S]
    if bucket.bits_per_s:
        rates.append(bucket.bits_per_s)
    if bucket.packets_per_s:
        rates.append(bucket.packets_per_s * 8 * SMALLEST_BYTES)
    return min(rates) // 10


def _peer_config(bucket: PeerBucket, direction: Direction) -> PeerConfig:
    config = PeerConfig(
        ipv4_prefix_length=bucket.ipv4_prefix_length,
        ipv6_prefix_length=bucket.ipv6_prefix_length,
        is_destination=direction is Direction.EGRESS,
    )
    return _with_meters(config, bucket)


def _with_meters(config: Config, bucket: Bucket | PeerBucket) -> Config:
    if bucket.bits_per_s and bucket.burst_bytes:
        burst_q = gcra.bytes_time_q(bucket.burst_bytes, bucket.bits_per_s)
        config = replace(config, bits_per_s=bucket.bits_per_s, bytes_burst_q=burst_q)
    if bucket.packets_per_s and bucket.burst_packets:
        burst_q = gcra.packets_time_q(bucket.burst_packets, bucket.packets_per_s)
        config = replace(config, packets_per_s=bucket.packets_per_s, packets_burst_q=burst_q)
    return config
