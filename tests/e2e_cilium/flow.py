"""One flow of UDP between two pods, with what its sender did and what the receiver's observer saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.kubectl import Kubectl
from tests.e2e.release import until
from tests.e2e.traffic import address
from tests.e2e_cilium.bucket import Bucket
from tests.e2e_cilium.observer import Sample, samples

OFFERED_BITS_PER_S = 40_000_000
SECONDS = 2.0
_PORT = 9
_PAYLOAD_BYTES = 1380
_HEADERS_BYTES = {4: 14 + 20 + 8, 6: 14 + 40 + 8}
_SEND = """
import json, socket, sys, time
target, port, payload, wire, per_s, seconds = sys.argv[1], *map(float, sys.argv[2:])
sender = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
packet, sent, record = bytes(int(payload)), 0, []
begin = time.monotonic()
while (now := time.monotonic()) - begin < seconds:
    # After a pause, the packets that are due come in a few larger turns.
    count = min(int((now - begin) * per_s / 8 / wire) + 1 - sent, 64)
    for _ in range(count):
        sender.sendto(packet, (target, int(port)))
    if count:
        record.append((now, count))
    sent += count
    time.sleep(0.001)
json.dump(record, sys.stdout)
"""
_OFFERED_AT_LEAST = 1.5


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow that has ended. All times are of the machine's monotonic clock, which nodes and pods share."""

    sent: Sequence[tuple[float, int]]
    """Times, and the number of packets sent then."""
    arrived: Sequence[Sample]
    """What the observer saw from the first packet on. Its counter is 0 before it."""
    packet_bytes: int

    @property
    def sent_packets(self) -> int:
        """Number of packets that the sender sent."""
        return sum(count for _, count in self.sent)

    @property
    def arrived_packets(self) -> int:
        """Number of packets that the observer saw."""
        return self.arrived[-1].datagrams if self.arrived else 0

    def exceeds(self, bucket: Bucket) -> str:
        """Return how the receiver got more than the bucket lets pass, at any moment; empty if it did not."""
        begin_s = self.sent[0][0]
        for sample in self.arrived:
            seconds = sample.before_s - begin_s
            found = sample.datagrams * self.packet_bytes
            most = bucket.most_bytes(seconds, self.packet_bytes)
            if found > most:
                return f"{found} bytes arrived within {seconds:.3f} s, not {most:.0f}"
        return ""

    def least(self, bucket: Bucket) -> int:
        """Return how many packets the bucket lets pass."""
        return bucket.least_packets(self.sent, self.packet_bytes)

    def is_offered(self, bucket: Bucket) -> bool:
        """Return whether the sender sent clearly more than the bucket lets pass."""
        seconds = self.sent[-1][0] - self.sent[0][0]
        offered = self.sent_packets * self.packet_bytes
        return offered > _OFFERED_AT_LEAST * bucket.most_bytes(seconds, self.packet_bytes)


def send(kubectl: Kubectl, client: str, server: str, version: int = 4, seconds: float = SECONDS) -> Flow:
    """Send from one pod to another, which has an observer, and return when nothing more arrives."""
    wire = _PAYLOAD_BYTES + _HEADERS_BYTES[version]
    numbers = (_PORT, _PAYLOAD_BYTES, wire, OFFERED_BITS_PER_S, seconds)
    words = (address(kubectl, server, version), *map(str, numbers))
    text = kubectl.exec(client, "python3", "-c", _SEND, *words, timeout_s=seconds + 120)
    sent = [(float(time_s), int(count)) for time_s, count in json.loads(text)]
    return Flow(sent, _since(_settled(kubectl, server), sent[0][0]), wire)


def _settled(kubectl: Kubectl, server: str) -> list[Sample]:
    """Return the samples of an observer when there are no new ones."""
    found: list[Sample] = []

    def unchanged() -> bool:
        before, found[:] = len(found), samples(kubectl, server)
        return len(found) == before

    until(unchanged)
    return found


def _since(found: Sequence[Sample], begin_s: float) -> list[Sample]:
    base = max((each.datagrams for each in found if each.before_s <= begin_s), default=0)
    return [
        Sample(each.after_s, each.datagrams - base, each.before_s)
        for each in found
        if each.before_s > begin_s
    ]
