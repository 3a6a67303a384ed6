"""The same source compiled by clang and loaded by the stock tc, as the proof of concept was used."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf import test_exactness
from tests.bpf.bucket_machine import Machine
from tests.bpf.conftest import PROGRAMS
from tests.clang import clang
from tokenbucket.bpf import syscall
from tokenbucket.bpf.pins import BPFFS, Pins, source_folder
from tokenbucket.bpf.slots import Slots

DEVICE = "stock0"


@pytest.fixture
def device() -> Iterator[str]:
    """Provide a veth to attach to."""
    subprocess.run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "stock1"], check=True)
    subprocess.run(["tc", "qdisc", "add", "dev", DEVICE, "clsact"], check=True)
    yield DEVICE
    subprocess.run(["ip", "link", "del", DEVICE], check=True)


@pytest.fixture
def loaded_by_tc(device: str, tmp_path: Path) -> Iterator[Machine]:
    """Compile the clocked program by clang and attach it by tc, which pins the maps by name."""
    program = tmp_path / "clocked.o"
    clang(PROGRAMS / "clocked.c", program)
    command = f"tc filter add dev {device} egress bpf da obj {program} sec tc/clocked_egress classid 1:7"
    subprocess.run(command.split(), check=True)
    shown = subprocess.run(
        f"tc filter show dev {device} egress".split(), check=True, capture_output=True, text=True
    )
    words = shown.stdout.split()
    program_fd = syscall.program_by_id(int(words[words.index("id") + 1]))
    with Slots(_globals_as_pins(tmp_path)) as slots:
        yield Machine(program_fd, slots)
    os.close(program_fd)


def _globals_as_pins(tmp_path: Path) -> Pins:
    """Return the folder in which tc pins maps, in place of tokenbucket's folder."""
    pins = Pins(tmp_path)
    pins.folder.mkdir()
    pins.maps.symlink_to(BPFFS / "tc" / "globals")
    return pins


def test_stock_tc_loads_the_shipped_object(device: str, tmp_path: Path) -> None:
    """Load each entry point by its section."""
    program = tmp_path / "tokenbucket.o"
    clang(source_folder() / "token_bucket.c", program)
    for hook in ("ingress", "egress"):
        command = f"tc filter add dev {device} {hook} bpf da obj {program} sec tc/{hook} classid 1:7"
        subprocess.run(command.split(), check=True)


def test_clangs_program_passes_the_reference_vectors(loaded_by_tc: Machine) -> None:
    """The decisions match the model, as for the program of bcc."""
    test_exactness.test_byte_meter_decides_as_the_model(loaded_by_tc)
    test_exactness.test_packet_meter_decides_as_the_model(loaded_by_tc)
    test_exactness.test_both_meters_charge_together_or_not_at_all(loaded_by_tc)
