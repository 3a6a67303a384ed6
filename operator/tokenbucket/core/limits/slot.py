"""Define the owner and the configuration of a slot as immutable values."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction, ExceedAction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.bucket import Bucket, Meters, PeerBucket
from tokenbucket.core.limits.queue_bound import SUPER_BYTES

NO_SLOT = 0
"""``TB_NO_SLOT`` of ``layout.h``. Its counters count packets whose filter refers to no used slot."""
RESERVE_BITS_PER_S = 10**6
"""Upper bound of the reserve, which is a tenth of the rate."""
RESERVE_BURST_BYTES = 16 * 1024
SMALLEST_BYTES = 42
"""Size of an ARP packet on a veth, which does not pad packets."""
_SUPER_SEGMENTS = 64


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """An interface that was limited manually. After a change of name, the index identifies it.

    An owner that an earlier version wrote has no index.
    """

    netns_inode: int
    name: str
    """The name when the limit was attached."""
    ifindex: int = field(default=0, compare=False)
    number: tuple[int, int] | None = field(default=None, compare=False)
    """For an interface of another namespace: the inode of a namespace, and the number there of the other."""

    def __str__(self) -> str:
        return self.name


Subject = PodId | DeviceId


class Role(enum.StrEnum):
    """The purpose of a bucket."""

    LIMIT = "limit"
    GUARD = "guard"
    """The second bucket of a limit inside a pod, on the node (:mod:`tokenbucket.core.limits.guard`)."""


@dataclass(frozen=True, slots=True)
class SlotKey:
    """Identity of a bucket: one per subject, direction and role, for all interfaces of the subject."""

    subject: Subject
    direction: Direction
    role: Role = Role.LIMIT

    @property
    def is_guard(self) -> bool:
        """Return whether the bucket is a guard."""
        return self.role is Role.GUARD

    @property
    def limit(self) -> SlotKey:
        """Return the key of the limit that a guard belongs to; of a limit, its own key."""
        return SlotKey(self.subject, self.direction) if self.is_guard else self

    @property
    def guard(self) -> SlotKey:
        """Return the key of the limit's guard."""
        return SlotKey(self.subject, self.direction, Role.GUARD)

    def __str__(self) -> str:
        return f"{self.subject} {self.direction}{' guard' if self.is_guard else ''}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a slot, and the policy that declares the limit."""

    key: SlotKey
    policy: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """The two meters of a bucket. A rate of 0 disables a meter. Bursts are times at the rate, in quanta."""

    bits_per_s: int = 0
    bytes_burst_q: int = 0
    packets_per_s: int = 0
    packets_burst_q: int = 0

    @property
    def burst_bytes(self) -> int:
        """Return the burst in bytes."""
        return gcra.bytes_in(self.bytes_burst_q, self.bits_per_s) if self.bits_per_s else 0

    @property
    def burst_packets(self) -> int:
        """Return the burst in packets."""
        return gcra.packets_in(self.packets_burst_q, self.packets_per_s) if self.packets_per_s else 0


@dataclass(frozen=True, slots=True)
class RateChange:
    """A change of one meter's rate."""

    meter: str
    """Field of the word in ``struct tb_meters``."""
    scales: tuple[int, int]
    """Scales before and after the change."""
    max_debt_q: int
    """Largest debt of the meter after the change, in quanta."""


Config = TypeVar("Config", bound=BucketConfig)


@dataclass(frozen=True, slots=True)
class PeerConfig(BucketConfig):
    """The bucket of each peer of a slot."""

    ipv4_prefix_length: int = 32
    ipv6_prefix_length: int = 64
    is_destination: bool = False
    """Whether the peer is the destination of a packet. Otherwise it is the source."""


@dataclass(frozen=True, slots=True)
class SlotConfig(BucketConfig):
    """The configuration of a slot."""

    reserve_bits_per_s: int = 0
    reserve_burst_q: int = 0
    dscp: int | None = None
    """Code point of forwarded excess packets (Mark)."""
    max_delay_q: int = 0
    """Maximum delay of excess packets, in quanta; 0 without Delay."""
    pacing: bool = False
    """Whether departure times that other programs set count, up to the maximum delay."""
    longest_backlog_q: int = 0
    """Longest backlog of a packet in its flow's turn, in quanta; 0 with a FIFO queue."""
    observe: bool = False
    observe_by_mode: bool = False
    """Whether ``observe`` is set by the enforcement mode of the node, and not by the policy."""
    node_reserve: bool = False
    per_peer: PeerConfig | None = None

    @property
    def longest_debts_q(self) -> tuple[int, int]:
        """Return the largest debts of the byte meter and the packet meter, in quanta: the longest backlog of
        large packets and one GSO packet, then small packets for half of the maximum delay.
        """
        ahead_q = max(self.max_delay_q, self.longest_backlog_q) + self.max_delay_q // 2
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

    ``node_reserve`` admits packets from the node within the reserve. Set it for ingress of pods only: on a
    device, every sent packet comes from the node.
    """
    reserve = _reserve_bits_per_s(bucket)
    config = SlotConfig(
        reserve_bits_per_s=reserve,
        reserve_burst_q=gcra.bytes_time_q(RESERVE_BURST_BYTES, reserve),
        dscp=bucket.dscp if bucket.action is ExceedAction.MARK else None,
        max_delay_q=(bucket.max_delay_ns or 0) * gcra.QUANTA_PER_NS,
        pacing=bucket.pacing,
        longest_backlog_q=(bucket.longest_backlog_ns or 0) * gcra.QUANTA_PER_NS,
        observe=bucket.observe,
        node_reserve=node_reserve,
        per_peer=_peer_config(bucket.per_peer, direction) if bucket.per_peer else None,
    )
    return _with_meters(config, bucket)


def _reserve_bits_per_s(bucket: Bucket) -> int:
    """Return a tenth of the lowest rate, with the packet rate in packets of the smallest size.

    The reserve is charged to both meters. A larger reserve could increase the debt of a meter without bound.
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


def _with_meters(config: Config, bucket: Meters) -> Config:
    if bucket.bits_per_s and bucket.burst_bytes:
        burst_q = gcra.bytes_time_q(bucket.burst_bytes, bucket.bits_per_s)
        config = replace(config, bits_per_s=bucket.bits_per_s, bytes_burst_q=burst_q)
    if bucket.packets_per_s and bucket.burst_packets:
        burst_q = gcra.packets_time_q(bucket.burst_packets, bucket.packets_per_s)
        config = replace(config, packets_per_s=bucket.packets_per_s, packets_burst_q=burst_q)
    return config
