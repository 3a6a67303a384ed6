"""Reference vectors of the proof of concept's algorithm, without its off-by-one error."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bpf.bucket_machine import UDP_PACKET, Machine, config, context
from tests.bpf.program_run import run_program

S = 10**9
LATE_NS = 1_000 * S


def admitted(machine: Machine, rate: int, burst: int, arrivals_ns: list[int]) -> list[int]:
    """Return which packets pass a bucket of that many packets. The bucket is full at the first packet."""
    machine.configure(config(packets_per_s=rate, burst_packets=burst))
    machine.fill(arrivals_ns[0])
    return [index for index, now_ns in enumerate(arrivals_ns) if machine.offer(now_ns)]


@pytest.mark.parametrize("burst", [1, 2, 5, 20])
def test_burst_from_idle_is_exactly_the_declared_one(machine: Machine, burst: int) -> None:
    """An idle bucket of N packets admits exactly N packets, not N + 1."""
    assert admitted(machine, 1, burst, [LATE_NS] * 50) == list(range(burst))


@pytest.mark.parametrize("seconds", range(8))
def test_after_a_pause_exactly_the_regained_tokens_pass(machine: Machine, seconds: int) -> None:
    """After the time of k tokens, min(k, burst) packets pass."""
    passed = admitted(machine, 1, 5, [LATE_NS] * 5 + [LATE_NS + seconds * S] * 10)
    assert len(passed) - 5 == min(seconds, 5)


def test_steady_overload_passes_the_known_indexes(machine: Machine) -> None:
    """Offer 100 packets at 20.6 per second to a bucket of 5 tokens that gains 1 token per second."""
    arrivals = [LATE_NS + int(index * S / 20.6) for index in range(100)]
    assert admitted(machine, 1, 5, arrivals) == [0, 1, 2, 3, 4, 21, 42, 62, 83]


@pytest.mark.parametrize(("packets_per_s", "before_loss"), [(10, 22), (4, 26), (2, 39)])
def test_loss_begins_where_a_bucket_of_twenty_is_empty(
    machine: Machine, packets_per_s: int, before_loss: int
) -> None:
    """Replay the scenarios of the application of the Open Packet Processor, with a bucket of 20."""
    arrivals = [LATE_NS + index * S // packets_per_s for index in range(60)]
    passed = admitted(machine, 1, 20, arrivals)
    assert next(index for index in range(60) if index not in passed) == before_loss


def test_all_source_addresses_share_one_bucket(machine: Machine) -> None:
    """The 257th source address has the same limit as the first."""
    machine.configure(config(packets_per_s=1, burst_packets=5))
    machine.fill(LATE_NS)
    passed = 0
    for source in range(1000):
        machine.packet = UDP_PACKET[:26] + source.to_bytes(4, "big") + UDP_PACKET[30:]
        passed += machine.offer(LATE_NS)
    assert passed == 5


@pytest.mark.parametrize("now_ns", [0, 1, 1000, S // 2])
def test_limited_from_the_first_instant_after_boot(machine: Machine, now_ns: int) -> None:
    """The limit is enforced while the clock is smaller than the time of the burst."""
    assert len(admitted(machine, 1, 5, [now_ns] * 50)) == 5


@pytest.mark.parametrize("idle_s", [3600, 86_400, 365 * 86_400, 2 * 365 * 86_400])
def test_any_idle_time_gives_one_burst(machine: Machine, idle_s: int) -> None:
    """An idle time of hours or years fills the bucket once, also across the wrap of the quanta clock."""
    arrivals = [LATE_NS] * 5 + [LATE_NS + idle_s * S] * 50
    assert admitted(machine, 1000, 5, arrivals) == list(range(10))


def test_cpus_do_not_multiply_the_burst(machine: Machine) -> None:
    """If several CPUs use one bucket at one instant, the bucket admits exactly one burst."""
    burst, threads, repeat = 50_000, 4, 200_000
    machine.configure(config(packets_per_s=1000, burst_packets=burst))
    machine.fill(LATE_NS)
    skb = context(LATE_NS, mark=machine.index, ingress_ifindex=1)
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(run_program, machine.program_fd, UDP_PACKET, skb, repeat) for _ in range(threads)]
        assert all(run.result() for run in runs)
    stats = machine.slots.stats(machine.index)
    assert stats.conform_packets == burst
    assert stats.conform_packets + stats.too_fast_packets == threads * repeat
