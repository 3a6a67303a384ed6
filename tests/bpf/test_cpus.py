"""Two CPUs that share one bucket get the tokens of one bucket, for each action on excess packets."""

from __future__ import annotations

import pytest

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.flood import CLOCKS_DIFFER_NS, flood
from tests.bpf.test_peers import MS, NOW_NS, peers
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT

BITS_PER_S, BURST_BYTES = 80_000_000, 100_000
PACKETS_PER_S, BURST_PACKETS = 6_000, 90
MOMENTS = range(NOW_NS, NOW_NS + 500 * MS, 5 * MS // 2)
DELAY_NS = 40 * MS
SIZES = ((60, 1), (1514, 1), (590, 1), (65_226, 45), (1514, 1), (120, 1), (9014, 7))
"""Wire bytes and segments. The sizes empty the two meters in turn."""
LARGEST_BYTES, MOST_SEGMENTS = 65_226, 45
DELAYS: dict[str, object] = {"max_delay_q": DELAY_NS * gcra.QUANTA_PER_NS}
PER_PEER: dict[str, object] = {"per_peer": peers(BITS_PER_S, BURST_BYTES)}
ACTIONS: dict[str, dict[str, object]] = {
    "Drop": {},
    "Delay": DELAYS,
    "Mark": {"dscp": 10},
    "Observe": {"observe": True},
    "Observe Delay": {"observe": True, **DELAYS},
    "Drop per peer": PER_PEER,
    "Delay per peer": {**DELAYS, **PER_PEER},
    "Mark per peer": {"dscp": 10, **PER_PEER},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("meters", ["bits", "packets", "both"])
def test_two_cpus_share_the_rate_and_one_burst(machine: Machine, action: str, meters: str) -> None:
    """Check bytes and packets, with mixed sizes.
    One more packet may pass, because the bucket may be just full.
    """
    bits = (BITS_PER_S, BURST_BYTES) if meters != "packets" else (0, 0)
    packets = (PACKETS_PER_S, BURST_PACKETS) if meters != "bits" else (0, 0)
    machine.configure(config(*bits, *packets, **ACTIONS[action]))  # type: ignore[arg-type]
    without_limit = machine.slots.stats(NO_SLOT).unmetered_packets
    machine.fill(NOW_NS)
    flood(machine, MOMENTS, SIZES)
    lasted_s = (MOMENTS[-1] + CLOCKS_DIFFER_NS - NOW_NS) / 10**9
    stats = machine.slots.stats(machine.index)
    waiting_s = 2 * DELAY_NS / 10**9 if "Delay" in action else 0.0  # the bound of small packets
    found_bytes = stats.conform_bytes + stats.delayed_bytes
    found_packets = stats.conform_packets + stats.delayed_packets
    assert stats.exceed_packets > 0
    assert machine.slots.stats(NO_SLOT).unmetered_packets == without_limit
    if meters != "packets":
        assert found_bytes <= BITS_PER_S / 8 * (lasted_s + waiting_s) + BURST_BYTES + LARGEST_BYTES
    if meters != "bits":
        assert found_packets <= PACKETS_PER_S * (lasted_s + waiting_s) + BURST_PACKETS + MOST_SEGMENTS
    if meters == "bits":  # most of the tokens must be used
        assert found_bytes > BITS_PER_S / 8 * lasted_s / 2
