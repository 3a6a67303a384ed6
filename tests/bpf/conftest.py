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
    """Maps of their own, gone after the session."""
    mount_bpffs()
    pins = Pins(Path("/sys/fs/bpf") / f"bpf_rung_{os.getpid()}")
    pins.maps.mkdir(parents=True)
    yield pins
    pins.remove()


@pytest.fixture(scope="session")
def compiled_by_bcc(pins: Pins) -> object:
    """The shipped source with the clocked entry points, compiled as the agent compiles it."""
    return loader.compiled(PROGRAMS / "clocked.c", source_folder(), pins.maps, SIZES)


@pytest.fixture
def slots(compiled_by_bcc: object, pins: Pins) -> Iterator[Slots]:
    """The maps, open."""
    with Slots(pins) as slots:
        yield slots


@pytest.fixture(scope="session")
def slots_of_session(compiled_by_bcc: object, pins: Pins) -> Iterator[Slots]:
    """The same, for cases that a test generates."""
    with Slots(pins) as slots:
        yield slots


@pytest.fixture
def machine(compiled_by_bcc: object, slots: Slots) -> Machine:
    """The egress hook's program, on a slot of its own."""
    return Machine(compiled_by_bcc.load_func(b"clocked_egress", 3).fd, slots)


@pytest.fixture
def ingress_machine(compiled_by_bcc: object, slots: Slots) -> Machine:
    """The ingress hook's program, on a slot of its own."""
    return Machine(compiled_by_bcc.load_func(b"clocked_ingress", 3).fd, slots, index=8)
