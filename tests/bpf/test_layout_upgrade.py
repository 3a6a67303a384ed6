"""A change of the layout version, by an upgrade or a rollback, keeps the tokens of each pod."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bucket_machine import config, fill
from tokenbucket.bpf.layout_upgrade import other_layouts
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import Pins, Sizes, mount_bpffs
from tokenbucket.bpf.slots import Slots, monotonic_ns
from tokenbucket.core.api.pod import PodId
from tokenbucket.core.api.policy import Direction
from tokenbucket.core.limits import gcra
from tokenbucket.core.limits.slot import NO_SLOT, DeviceId, Owner, Slot, SlotKey

MS = 10**6
DEVICE = SlotKey(DeviceId(0, "eth1"), Direction.EGRESS)


@pytest.fixture
def pins() -> Iterator[Pins]:
    """Provide an empty folder for pins."""
    mount_bpffs()
    pins = Pins(Path(f"/sys/fs/bpf/upgrade_{os.getpid()}"))
    yield pins
    pins.remove()


def slot(name: str) -> Slot:
    return Slot(
        Owner(SlotKey(PodId("shop", name, f"uid-{name}"), Direction.INGRESS)), config(8 * 10**6, 10**6)
    )


def load_as_another_version(pins: Pins) -> Slots:
    """Load the program, and rename the layout version. Return its open maps, with ``web`` in slot 3."""
    ensure_loaded(pins, Sizes(16))
    slots = Slots(pins)
    slots.write(3, slot("web"), fresh=True)
    fill(slots, 3, 10**15)  # a new bucket never has this state
    pins.folder.rename(pins.root / "v0")
    return slots


def move(slots: Slots, index: int, at_ns: int) -> None:
    """Set the words of a slot's meters to that time of the monotonic clock."""
    half = 2**63 // gcra.QUANTA_PER_NS  # an unused word lags by this time
    fill(slots, index, at_ns + half)


def test_a_layout_change_keeps_the_tokens_of_a_limit(pins: Pins) -> None:
    """A limit keeps its tokens in any slot of the new version.
    A limit without a slot in the old version starts with a full bucket.
    """
    load_as_another_version(pins).close()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(1, slot("new"), fresh=True)
        slots.write(2, slot("web"), fresh=True)
        slots.write(4, slot("probe"), fresh=False)
        fill(slots, 4, 10**15)
        assert slots.meters(2) == slots.meters(4)
        assert slots.meters(1) != slots.meters(4)


def test_packets_that_pass_the_other_version_are_charged(pins: Pins) -> None:
    """Filters move one by one. Until the last one has moved, packets pass through both versions."""
    with load_as_another_version(pins) as other:
        ensure_loaded(pins, Sizes(16))
        with Slots(pins) as slots:
            now_ns = monotonic_ns()
            move(other, 3, now_ns)
            slots.write(2, slot("web"), fresh=True)
            move(other, 3, now_ns + 5 * MS)
            move(slots, 2, now_ns + 2 * MS)
            for _ in range(2):
                slots.carry_over_charges(2)
                assert slots.meters(2).bytes_tat == gcra.word_of(now_ns + 7 * MS)


def test_a_new_agent_continues_the_layout_change(pins: Pins) -> None:
    """A new agent does not know the earlier charges. It charges at least the amount in the other version."""
    with load_as_another_version(pins) as other:
        ensure_loaded(pins, Sizes(16))
        with Slots(pins) as slots:
            slots.write(2, slot("web"), fresh=True)
        now_ns = monotonic_ns()
        with Slots(pins) as slots:
            for there_ns, here_ns in ((5 * MS, 2 * MS), (2 * MS, 5 * MS)):
                move(other, 3, now_ns + there_ns)
                move(slots, 2, now_ns + here_ns)
                slots.carry_over_charges(2)
                assert slots.meters(2).bytes_tat == gcra.word_of(now_ns + 5 * MS)


def test_only_filters_of_other_versions_move_over(pins: Pins) -> None:
    """Distinguish filters by their programs."""
    load_as_another_version(pins).close()
    theirs = pins.program_ids()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        assert slots.previous_layouts.program_ids == theirs
        assert {slots.resolve_slot(3, program) for program in theirs} == {NO_SLOT}
        assert {slots.resolve_slot(3, program) for program in pins.program_ids() - theirs} == {3}


def test_a_layout_change_resets_peers(pins: Pins) -> None:
    """The entries of peers stay in the old map, so the slot gets an epoch that no entry uses."""
    load_as_another_version(pins).close()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(2, slot("web"), fresh=True)
        first = slots.peers_epoch(2)
        slots.write(3, slot("web"), fresh=True)
        assert 0 < first < slots.peers_epoch(3)


def test_an_unused_layout_version_is_removed(pins: Pins) -> None:
    """Later limits then start with full buckets."""
    load_as_another_version(pins).close()
    build = ensure_loaded(pins, Sizes(16))
    assert [folder.name for folder in other_layouts(pins)] == ["v0"]
    with Slots(pins) as slots:
        slots.previous_layouts.unpin()
    assert other_layouts(pins) == []
    assert pins.has_build(build)


def test_a_version_that_limits_a_device_stays(pins: Pins) -> None:
    """The agent does not move limits of devices."""
    with load_as_another_version(pins) as theirs:
        theirs.write(4, Slot(Owner(DEVICE), config(8 * 10**6, 10**6)), fresh=True)
    programs = pins.program_ids()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        assert all(slots.limits_device_in_another_layout(4, program) for program in programs)
        assert not any(slots.limits_device_in_another_layout(3, program) for program in programs)
        assert not any(
            slots.limits_device_in_another_layout(4, other) for other in pins.program_ids() - programs
        )
        slots.previous_layouts.unpin()
    assert [folder.name for folder in other_layouts(pins)] == ["v0"]


def test_an_incomplete_layout_version_is_ignored(pins: Pins) -> None:
    """For example, its loader was killed. The slots in its filters are not slots of this version."""
    load_as_another_version(pins).close()
    (pins.root / "v0/maps/tb_meters").unlink()
    theirs = pins.program_ids()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        assert slots.previous_layouts.program_ids == theirs
        slots.write(1, slot("web"), fresh=True)
        assert slots.read()[1] == slot("web")
