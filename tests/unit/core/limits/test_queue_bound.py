"""The queue of one pod and direction holds at most 16 MiB."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tokenbucket.core.api.policy import ExceedAction, Limit, Mode, Queue, Rate
from tokenbucket.core.limits.bucket import bucket_of
from tokenbucket.core.limits.queue_bound import HELD_BYTES, Meter, longest_delay_ns, permits_pacing

MS = 10**6
SUPER_BYTES = 2**16
M, G = 10**6, 10**9


@dataclass
class Model:
    """A meter with its state. It begins full."""

    meter: Meter
    tat_ns: float = field(default=float("-inf"))

    def ahead_ns(self, now_ns: float) -> float:
        return max(self.tat_ns - now_ns, -self.meter.time_ns(self.meter.burst_bytes))

    def charge(self, size: int, now_ns: float) -> float:
        """Return the delay of the packet."""
        ahead_ns = self.ahead_ns(now_ns)
        self.tat_ns = now_ns + ahead_ns + self.meter.time_ns(size)
        return ahead_ns + self.meter.time_ns(min(size, self.meter.burst_bytes))


def most_held(own: list[Meter], peers: list[Meter], delay_ns: int, stamp_ns: int = 0) -> int:
    """Return the most bytes that wait, if all peers send GSO packets with departures ``stamp_ns`` later."""
    pod = [Model(each) for each in own]
    senders = [[Model(each) for each in peers] for _ in range(65_536 if peers else 1)]
    longest_ns = delay_ns + max(each.time_ns(min(each.burst_bytes, SUPER_BYTES)) for each in (*own, *peers))
    leaves_ns: list[float] = []
    most = turn = 0
    for step in range(1000):
        now_ns = step * longest_ns / 500
        leaves_ns = [each for each in leaves_ns if each > now_ns]
        refused = 0
        while refused < 8:  # of many peers the next one may have room
            chain = [*pod, *senders[turn % len(senders)]]
            if any(each.ahead_ns(now_ns) > delay_ns for each in chain):
                refused += 1
                turn += 1
                continue
            wait_ns = max(stamp_ns, *(each.charge(SUPER_BYTES, now_ns) for each in chain))
            if wait_ns > 0:
                leaves_ns.append(now_ns + wait_ns)
                turn += 1
        most = max(most, len(leaves_ns))
    return most * SUPER_BYTES


def bits(rate: int, burst: int) -> Meter:
    return Meter(rate, burst)


@pytest.mark.parametrize(
    ("own", "peers"),
    [
        ([bits(10 * G, 62_500_000)], []),
        ([Meter.of_packets(M, 50_000)], []),
        ([bits(G, 6_250_000), Meter.of_packets(100_000, 5000)], []),
        ([bits(50 * M, 2**30), Meter.of_packets(M, 64)], []),
        ([bits(M, 32_768), Meter.of_packets(M, 50_000)], []),
        ([bits(G, 2**22)], [bits(10 * M, 62_500)]),
        ([bits(100 * M, 625_000)], [bits(M, 32_768)]),
        ([Meter.of_packets(100_000, 2770)], [bits(100 * M, 625_000)]),
        ([bits(10 * G, 2**22)], [bits(G, 6_250_000)]),
    ],
)
def test_at_most_16_mib_are_queued(own: list[Meter], peers: list[Meter]) -> None:
    """Except for one packet of each meter that is about to leave, and one that was just admitted."""
    delay_ns = longest_delay_ns(own, peers)
    assert delay_ns
    delay_ns = min(delay_ns, 2_000 * MS)
    assert most_held(own, peers, delay_ns) <= HELD_BYTES + 2 * len(own) * SUPER_BYTES


@pytest.mark.parametrize(
    ("own", "peers", "delay_ns"),
    [
        ([bits(10 * M, 62_500)], [], 100 * MS),
        ([bits(500 * M, 3_125_000)], [], 100 * MS),
        ([bits(100 * M, 2**23)], [], 300 * MS),
        ([bits(100 * M, 625_000), Meter.of_packets(10_000, 500)], [], 500 * MS),
        ([bits(100 * M, 625_000)], [bits(M, 32_768)], 100 * MS),
    ],
)
def test_at_most_16_mib_are_queued_if_senders_set_departure_times(
    own: list[Meter], peers: list[Meter], delay_ns: int
) -> None:
    """Ask for the latest departure time that counts."""
    assert permits_pacing(own, peers, delay_ns)
    assert most_held(own, peers, delay_ns, delay_ns) <= HELD_BYTES


@pytest.mark.parametrize("own", [[bits(G, 6_250_000)], [bits(10 * M, 2**30)], [Meter.of_packets(M, 64)]])
def test_departure_times_of_others_do_not_count_if_they_could_fill_the_queue(own: list[Meter]) -> None:
    """Ignore them if the rate is too high, or the burst too deep, for the maximum delay."""
    assert not permits_pacing(own, [], 100 * MS)
    assert most_held(own, [], 100 * MS, 100 * MS) > HELD_BYTES


@pytest.mark.parametrize(
    "own",
    [
        [],
        [bits(G, 2**24)],
        [bits(100 * G, 2**22)],
        [bits(100 * M, 625_000), Meter.of_packets(10**9, 2770)],
    ],
)
def test_slow_peers_of_a_fast_pod_are_not_delayed(own: list[Meter]) -> None:
    """Degrade limits without a bound: a GSO packet of each peer could wait for 33 s."""
    assert longest_delay_ns(own, [bits(8000, 32_768)]) is None


def test_the_slower_of_two_meters_bounds_the_queue() -> None:
    """Ignore a packet rate far above the bit rate."""
    alone = longest_delay_ns([bits(M, 32_768)], [])
    both = longest_delay_ns([bits(M, 32_768), Meter.of_packets(M, 50_000)], [])
    assert alone
    assert both
    assert both > 1_000 * MS > longest_delay_ns([Meter.of_packets(M, 50_000)], [])
    assert both < alone


@pytest.mark.parametrize(
    ("bits_per_s", "longest_ns"), [(M, 290_688_000), (100 * M, 150 * MS), (G, 133_693_440)]
)
def test_the_backlog_of_a_fair_queue_is_bounded(bits_per_s: int, longest_ns: int) -> None:
    """Bound it by 1.5 times the maximum delay, and by 16 MiB."""
    limit, fifo = Limit(Rate(bits_per_s)), Limit(Rate(bits_per_s), queue=Queue.FIFO)
    bucket = bucket_of(limit, Mode.ENFORCE, action=ExceedAction.DELAY)
    assert bucket.longest_backlog_ns == longest_ns
    assert bucket_of(fifo, Mode.ENFORCE, action=ExceedAction.DELAY).longest_backlog_ns is None
    assert bucket_of(limit, Mode.ENFORCE, action=ExceedAction.DROP).longest_backlog_ns is None
