"""Define the content of a TokenBucketPolicy as immutable values.

The values are as declared. A default that depends on another field is ``None`` here, and
:mod:`tokenbucket.core.limits.bucket` computes it. :mod:`tokenbucket.core.api.parse` parses policies.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tokenbucket.core.api.selector import Selector


class Direction(enum.StrEnum):
    """Direction of traffic as the pod sees it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class ExceedAction(enum.StrEnum):
    """The action on a packet that exceeds the limit."""

    DELAY = "Delay"
    DROP = "Drop"
    MARK = "Mark"


class Mode(enum.StrEnum):
    """The mode of a policy, or of a node. A policy can also have DISABLED, which means OFF."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"
    OFF = "Off"


DISABLED = "Disabled"
"""A word for OFF that YAML does not read as a boolean."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The long-term rate. A valid limit sets at least one of the two fields."""

    bits_per_s: int | None = None
    packets_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """The declared depth of the bucket. ``None`` means computed from the rate."""

    size_bytes: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class PerPeer:
    """The bucket of each remote prefix, below the bucket of the pod."""

    rate: Rate
    burst: Burst = Burst()
    ipv4_prefix_length: int = 32
    ipv6_prefix_length: int = 64


class Queue(enum.StrEnum):
    """The order in which Delay lets packets of different flows depart."""

    FIFO = "Fifo"
    FAIR = "Fair"


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one direction."""

    rate: Rate
    burst: Burst = Burst()
    per_peer: PerPeer | None = None
    exceed_action: ExceedAction = ExceedAction.DELAY
    max_delay_ns: int | None = None
    queue: Queue | None = None
    """As declared; see :attr:`is_fair`."""
    dscp: int | None = None

    @property
    def is_fair(self) -> bool:
        """Return whether the flows of the limit share its rate. This is the default, except with perPeer."""
        if self.exceed_action is not ExceedAction.DELAY:
            return False
        return self.queue is Queue.FAIR or (self.queue is None and not self.per_peer)


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


FEATURES = (*ExceedAction, *Mode, *Queue, "PerPeer")
"""Parts of the API that this version supports. Append new ones: older versions reject policies with them."""


def features_of(policy: Policy) -> frozenset[str]:
    """Return the parts of the API that a policy uses."""
    limits = policy.limits.values()
    per_peer = {"PerPeer"} if any(limit.per_peer for limit in limits) else set()
    words = {word.value for limit in limits for word in (limit.exceed_action, limit.queue) if word}
    return frozenset({policy.mode.value} | words | per_peer)


@dataclass(frozen=True, slots=True)
class RejectedPolicy:
    """A policy that the API server accepted and the agent rejects."""

    namespace: str
    name: str
    uid: str
    generation: int
    message: str
    forbidden: bool = False
    """Whether no version of the policy is allowed, because its namespace is protected."""
    last_valid: Policy | None = None
    """The version that stays enforced. ``None`` if this process has seen none, or if none is allowed."""

    def after(self, before: Policy | RejectedPolicy | None) -> RejectedPolicy:
        """Return this rejection with the last valid version of the same policy."""
        last = before.last_valid if isinstance(before, RejectedPolicy) else before
        if self.forbidden or not last or last.uid != self.uid:
            return self
        return replace(self, last_valid=last)
