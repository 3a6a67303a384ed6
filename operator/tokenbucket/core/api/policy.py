"""What a TokenBucketPolicy says, as immutable values.

Values are as declared: a default that is computed from another field is ``None`` here and is
filled in by :mod:`tokenbucket.core.limits.bucket`. Parsing is in :mod:`tokenbucket.core.api.parse`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from tokenbucket.core.api.selector import Selector


class Direction(enum.StrEnum):
    """Direction of traffic as the pod sees it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class ExceedAction(enum.StrEnum):
    """What happens to a packet that exceeds the limit."""

    DELAY = "Delay"
    DROP = "Drop"
    MARK = "Mark"


class Mode(enum.StrEnum):
    """How far a policy goes."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"
    OFF = "Off"


@dataclass(frozen=True, slots=True)
class Rate:
    """Long-term rate. At least one of the two is set in a valid limit."""

    bits_per_s: int | None = None
    packets_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """Depth of the bucket, as declared; ``None`` means computed from the rate."""

    size_bytes: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class PerPeer:
    """A bucket of its own for each remote prefix, under the pod's."""

    rate: Rate
    burst: Burst = Burst()
    ipv4_prefix_length: int = 32
    ipv6_prefix_length: int = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one direction."""

    rate: Rate
    burst: Burst = Burst()
    per_peer: PerPeer | None = None
    exceed_action: ExceedAction = ExceedAction.DELAY
    max_delay_ns: int | None = None
    dscp: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """One TokenBucketPolicy."""

    namespace: str
    name: str
    selector: Selector
    limits: Mapping[Direction, Limit]
    priority: int = 0
    mode: Mode = Mode.ENFORCE
    uid: str = ""
    generation: int = 0
    created: str = ""
    """``metadata.creationTimestamp``, RFC 3339; empty in a manifests folder. Sorts as text."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A policy that the schema let through and that cannot be used."""

    namespace: str
    name: str
    uid: str
    generation: int
    message: str
