"""Counters of the program: each packet is counted exactly once."""

from __future__ import annotations

import pytest

from tests.bpf.bucket_machine import Machine, config
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits.slot import Owner, Slot, SlotKey
from tokenbucket.core.limits.stats import Stats

MS = 10**6
NOW_NS = 1_000 * 10**9
OFFERED, SIZE_BYTES = 200, 1000
ACTIONS = {"Drop": {}, "Delay": {"max_delay_q": 256 * 5 * MS}, "Mark": {"dscp": 10}}
RESERVE = {"node_reserve": True, "reserve_bits_per_s": 10**6, "reserve_burst_q": 256 * 20 * MS}


@pytest.mark.parametrize("further", [{}, RESERVE], ids=["", "with a reserve"])
@pytest.mark.parametrize("observe", [False, True], ids=["", "observed"])
@pytest.mark.parametrize("action", ACTIONS)
def test_admitted_and_dropped_packets_add_up_to_the_offered_packets(
    machine: Machine, action: str, further: dict[str, int], *, observe: bool
) -> None:
    """Packets and bytes add up for each action. The node itself sends a part of them."""
    given = ACTIONS[action] | further | {"observe": observe}
    machine.configure(config(bits_per_s=10**7, burst_bytes=5 * SIZE_BYTES, **given))
    machine.fill(NOW_NS)
    passed = sum(
        machine.offer(NOW_NS + number * MS // 10, SIZE_BYTES, ingress_ifindex=number % 2)
        for number in range(OFFERED)
    )
    stats = machine.slots.stats(machine.index)
    assert passed == OFFERED if observe or action == "Mark" else 5 < passed < OFFERED
    assert (stats.admitted_packets, stats.dropped_packets) == (passed, OFFERED - passed)
    assert (stats.admitted_bytes, stats.dropped_bytes) == (
        passed * SIZE_BYTES,
        (OFFERED - passed) * SIZE_BYTES,
    )


def test_a_mode_change_keeps_the_counters(machine: Machine) -> None:
    """Excess packets in Observe mode never count as dropped. Dropped packets never count as forwarded."""
    limit = {"packets_per_s": 1, "burst_packets": 1}
    machine.configure(config(**limit))
    for observe in (True, False, True):
        machine.change(config(**limit, observe=observe), NOW_NS)
        machine.fill(NOW_NS)
        for _ in range(10):
            machine.offer(NOW_NS)
    stats = machine.slots.stats(machine.index)
    assert (stats.forwarded_packets, stats.dropped_packets) == (18, 9)


def test_a_reused_slot_counts_from_zero(machine: Machine) -> None:
    """All counters restart at zero, also the rarely used ones."""
    machine.configure(config(packets_per_s=1, burst_packets=1))
    machine.fill(NOW_NS)
    for _ in range(10):
        machine.offer(NOW_NS)
    assert machine.slots.stats(machine.index).dropped_packets == 9
    machine.slots.free(machine.index)
    machine.configure(config(packets_per_s=1, burst_packets=1))
    stats = machine.slots.stats(machine.index)
    assert (stats.admitted_packets, stats.dropped_packets) == (0, 0)


@pytest.mark.parametrize(("uid", "left"), [("2", False), ("1", True)])
def test_a_slot_whose_owner_changes_during_a_read_is_skipped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, uid: str, *, left: bool
) -> None:
    """Its counters may belong to the next owner. A change of the policy alone does not skip the slot."""
    slots, read = machine.slots, machine.slots.stats

    def own(uid: str, policy: str) -> SlotKey:
        key = SlotKey(PodId("shop", "web", uid), Direction.INGRESS)
        slots.write(
            machine.index, Slot(Owner(key, policy), config(packets_per_s=1, burst_packets=1)), fresh=True
        )
        return key

    def read_slowly(index: int) -> Stats:
        stats = read(index)
        own(uid, "after")
        return stats

    own("1", "before")
    monkeypatch.setattr(slots, "stats", read_slowly)
    found = [slot.owner for slot, _ in slots.read_with_stats() if slot.owner.key.subject.name == "web"]
    assert [owner.policy for owner in found] == ["after"] * left
