"""Another layout version: an upgrade, or a step back, keeps every pod's tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenbucket.bpf.elders import other_layouts, remove_other_layouts
from tokenbucket.bpf.load import ensure_loaded
from tokenbucket.bpf.pins import Pins, Sizes, mount_bpffs
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.pod import PodId
from tokenbucket.core.policy import Direction
from tokenbucket.core.slot import Owner, Slot, SlotConfig, SlotKey


@pytest.fixture
def pins() -> Iterator[Pins]:
    """A place for pins, empty."""
    mount_bpffs()
    pins = Pins(Path(f"/sys/fs/bpf/elders_{os.getpid()}"))
    yield pins
    pins.remove()


def slot(name: str) -> Slot:
    return Slot(Owner(SlotKey(PodId("shop", name, f"uid-{name}"), Direction.INGRESS)), SlotConfig())


def load_as_another_version(pins: Pins) -> None:
    """Loads, and renames the layout version."""
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(3, slot("web"), fresh=True)
        slots.fill(3, 10**15)  # a state that no new bucket has
    pins.folder.rename(pins.root / "v0")


def test_a_limit_takes_its_tokens_along(pins: Pins) -> None:
    """Whatever slot it has in the other version; a limit that is not there begins with a full bucket."""
    load_as_another_version(pins)
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(1, slot("new"), fresh=True)
        slots.write(2, slot("web"), fresh=True)
        slots.write(4, slot("probe"), fresh=False)
        slots.fill(4, 10**15)
        assert slots.meters(2) == slots.meters(4)
        assert slots.meters(1) != slots.meters(4)


def test_peers_are_new_in_another_version(pins: Pins) -> None:
    """Their entries stay behind, so the slot's epoch must not be that of any of them."""
    load_as_another_version(pins)
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(2, slot("web"), fresh=True)
        first = slots.peers_epoch(2)
        slots.write(3, slot("web"), fresh=True)
        assert 0 < first < slots.peers_epoch(3)


def test_the_other_version_goes_when_nothing_runs_it(pins: Pins) -> None:
    """And from then on buckets are new."""
    load_as_another_version(pins)
    build = ensure_loaded(pins, Sizes(16))
    assert [folder.name for folder in other_layouts(pins)] == ["v0"]
    remove_other_layouts(pins)
    assert other_layouts(pins) == []
    assert pins.has_build(build)


def test_an_incomplete_version_is_left_aside(pins: Pins) -> None:
    """Such as one whose loader was killed."""
    load_as_another_version(pins)
    (pins.root / "v0/maps/tb_meters").unlink()
    ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        slots.write(1, slot("web"), fresh=True)
        assert slots.read()[1] == slot("web")
