"""The limits of the suite: every kind of enforcement, in both directions, each on a pod of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.release import policy
from tests.e2e_cilium.bucket import Bucket

BUCKET = Bucket(bits_per_s=10_000_000, burst_bytes=128 * 1024)
_RATE = {"rate": {"bits": "10M"}, "burst": {"bytes": "128Ki"}}
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "drop": {**_RATE, "exceedAction": "Drop"},
    # The nodes' kernel has no fq, so this limit is degraded to Drop.
    "delay": {**_RATE, "exceedAction": "Delay"},
    "peer": {"rate": {"bits": "100M"}, "perPeer": _RATE, "exceedAction": "Drop"},
    "observe": {**_RATE, "exceedAction": "Drop"},
}
# For packets of the node itself, when the bucket is empty.
_RESERVE = Bucket(bits_per_s=1_000_000, burst_bytes=16 * 1024)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of one pod in one direction."""

    direction: str
    kind: str

    def __str__(self) -> str:
        return f"{self.direction}-{self.kind}"

    @property
    def observes(self) -> bool:
        """Whether excess packets pass."""
        return self.kind == "observe"

    def policy(self) -> dict[str, Any]:
        """Return the policy, for the pod that is named like the limit."""
        mode = {"mode": "Observe"} if self.observes else {}
        return policy(str(self), str(self), **{self.direction: _KINDS[self.kind]}, **mode)

    def most(self, peer: str) -> Bucket:
        """Return the bucket that bounds the packets from or to a peer, with the reserve for the node's."""
        if self.direction != "ingress" or peer != HOST:
            return BUCKET
        # The reserve is charged to the pod's own bucket, and so adds to its burst alone.
        rate = _RESERVE.bits_per_s if self.kind == "peer" else 0
        return Bucket(BUCKET.bits_per_s + rate, BUCKET.burst_bytes + _RESERVE.burst_bytes)


LIMITS = [Limit(direction, kind) for direction in ("ingress", "egress") for kind in _KINDS]
NEAR, FAR, HOST = "near", "far", "host"
PEERS = (NEAR, FAR, HOST)
"""Who talks to a limited pod: a pod of its node, a pod of the other node, and its node itself."""
