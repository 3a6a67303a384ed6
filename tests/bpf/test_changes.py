"""Changes of a limit while packets come: nothing is given away, and nothing is without a limit."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.bpf.bucket_machine import Machine, config
from tests.bpf.flood import flood
from tests.bpf.test_peers import FULL, MS, peers
from tokenbucket.bpf.slots import monotonic_ns
from tokenbucket.core import gcra
from tokenbucket.core.slot import SlotConfig

SLOW, FAST = 4_000_000, 16_000_000
BURST_S = 1 / 32
DELAY_NS = 40 * MS
CHANGES, PAUSE_S = 2000, 0.0005
PACKETS_PER_S = 10**6


def limit(bits_per_s: int, **action: object) -> SlotConfig:
    """A rate with a burst of that time; packets are limited too, far above what comes."""
    return config(
        bits_per_s,
        int(bits_per_s * BURST_S / 8),
        PACKETS_PER_S,
        PACKETS_PER_S,
        **action,  # type: ignore[arg-type]
    )


ACTIONS: dict[str, dict[str, object]] = {
    "Drop": {},
    "Delay": {"max_delay_q": DELAY_NS * gcra.QUANTA_PER_NS},
    "per peer": {"per_peer": peers(SLOW, SLOW // 80)},
    "Delay per peer": {
        "max_delay_q": DELAY_NS * gcra.QUANTA_PER_NS,
        "per_peer": peers(SLOW, SLOW // 80),
    },
}


@pytest.mark.parametrize("actions", [*((name,) for name in ACTIONS), tuple(ACTIONS)], ids=", ".join)
def test_changes_one_after_the_other_give_nothing_away(machine: Machine, actions: tuple[str, ...]) -> None:
    """Of rate and burst, and from each action to each other: what is let through stays within the higher rate
    x time + one burst, and does not fall below the lower rate.
    """
    limits = [limit(rate, **ACTIONS[name]) for name in actions for rate in (SLOW, FAST)]
    machine.configure(limits[0])
    began_ns = monotonic_ns()
    machine.fill(began_ns)
    changes = (each for pair in itertools.permutations(limits, 2) for each in pair)
    with flood(machine):
        for each in itertools.islice(itertools.cycle(changes), CHANGES):
            machine.configure(each, fresh=False)
            time.sleep(PAUSE_S)
    lasted_s = (monotonic_ns() - began_ns) / 10**9
    stats = machine.slots.stats(machine.index)
    admitted_bits = 8 * (stats.conform_bytes + stats.delayed_bytes)
    waiting_s = DELAY_NS / 10**9 if any("Delay" in name for name in actions) else 0
    assert stats.unmetered_packets == 0
    assert stats.dropped_packets > 0
    assert admitted_bits <= FAST * (lasted_s + BURST_S + waiting_s) + 8 * 2 * FULL
    assert admitted_bits >= SLOW * lasted_s
