"""A flow through a limit, and a comparison of the received traffic with the limit."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e_cilium.flow import SECONDS, Flow
from tests.e2e_cilium.laboratory import Laboratory
from tests.e2e_cilium.limits import BUCKET, Limit

_ATTEMPTS = 3
_ENOUGH = 0.995


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the observer saw of a flow, and what tokenbucket counted of it."""

    limit: Limit
    peer: str
    flow: Flow
    counted_packets: int
    """0 unless the limit observes."""

    def excess(self) -> str:
        """Return how more passed than the limit allows or, if it observes, than it counted; or nothing."""
        sent = self.flow.sent_packets
        if not self.limit.observes:
            return self.flow.exceeds(self.limit.most(self.peer))
        if self.counted_packets < _ENOUGH * sent:
            return f"{self.counted_packets} of {sent} packets were counted"
        return ""

    def shortage(self) -> str:
        """Return how less passed than the limit allows; empty if no packet was kept back without need."""
        sent, arrived = self.flow.sent_packets, self.flow.arrived_packets
        expected = sent if self.limit.observes else self.flow.least(BUCKET)
        return f"{arrived} of {sent} packets arrived, not {expected}" if arrived < _ENOUGH * expected else ""


def measure(
    lab: Laboratory, limit: Limit, peer: str, version: int = 4, seconds: float = SECONDS
) -> Measurement:
    """Send through a limit, from a peer or to it.

    A measurement that shows less than it should is repeated: a busy machine loses packets elsewhere, or sends
    too few.
    """
    for _ in range(_ATTEMPTS):
        before = _counted(lab, limit)
        flow = lab.send(limit, peer, version, seconds)
        found = Measurement(limit, peer, flow, _counted(lab, limit) - before)
        if found.excess() or (flow.is_offered(BUCKET) and not found.shortage()):
            break
    return found


def _counted(lab: Laboratory, limit: Limit) -> int:
    return lab.counted_packets(limit) if limit.observes else 0
