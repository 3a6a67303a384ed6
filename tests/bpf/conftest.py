"""Fixtures of the bpf rung: the program compiled by bcc, and the same source compiled by clang."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bucket_machine import Machine
from tests.isolation import private_namespaces
from tokenbucket.bpf import loader
from tokenbucket.bpf.pins import Pins, Sizes, mount_bpffs, source_folder
from tokenbucket.bpf.slots import Slots

PROGRAMS = Path(__file__).parent / "programs"
SIZES = Sizes(slots=64, peers=4096)


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    private_namespaces()


@pytest.fixture(scope="session")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pins]:
    """Provide maps for the session, and remove them afterwards."""
    mount_bpffs()
    pins = Pins(Path("/sys/fs/bpf") / f"bpf_rung_{os.getpid()}")
    pins.maps.mkdir(parents=True)
    yield pins
    pins.remove()


@pytest.fixture(scope="session")
def compiled_by_bcc(pins: Pins) -> object:
    """Compile the shipped source with the clocked entry points, as the agent compiles it."""
    return loader.compiled(PROGRAMS / "clocked.c", source_folder(), pins.maps, SIZES)


@pytest.fixture
def slots(compiled_by_bcc: object, pins: Pins) -> Iterator[Slots]:
    """Open the maps for one test."""
    with Slots(pins) as slots:
        yield slots


@pytest.fixture(scope="session")
def slots_of_session(compiled_by_bcc: object, pins: Pins) -> Iterator[Slots]:
    """Open the maps for the session, for generated cases."""
    with Slots(pins) as slots:
        yield slots


@pytest.fixture
def machine(compiled_by_bcc: object, slots: Slots) -> Machine:
    """Provide the program of the egress hook, on a slot of its own."""
    return Machine(compiled_by_bcc.load_func(b"clocked_egress", 3).fd, slots)


@pytest.fixture
def ingress_machine(compiled_by_bcc: object, slots: Slots) -> Machine:
    """Provide the program of the ingress hook, on a slot of its own."""
    return Machine(compiled_by_bcc.load_func(b"clocked_ingress", 3).fd, slots, index=8)
