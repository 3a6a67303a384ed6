"""Load the program: each error is one line, and a failed load keeps the loaded programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bucket_machine import OWNER, config
from tokenbucket.bpf import load, syscall
from tokenbucket.bpf.pins import FLOWS, HookProgram, Pins, Sizes, build_of, mount_bpffs, opened, source_folder
from tokenbucket.bpf.slots import Slots
from tokenbucket.core.limits.slot import Slot
from tokenbucket.errors import LoadError


@pytest.fixture
def pins() -> Iterator[Pins]:
    """Provide an empty folder for pins."""
    mount_bpffs()
    pins = Pins(Path(f"/sys/fs/bpf/load_{os.getpid()}"))
    yield pins
    pins.remove()


def changed(tmp_path: Path, before: str, after: str) -> Path:
    """Return the C source with one change."""
    folder = tmp_path / "source"
    tmp_path.mkdir(exist_ok=True)
    shutil.copytree(source_folder(), folder)
    file = folder / "token_bucket.c"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    return folder


def test_loading_twice_loads_once(pins: Pins) -> None:
    """The second load compiles nothing and keeps the same programs."""
    build = load.ensure_loaded(pins, Sizes(16))
    with opened(pins.build(build) / HookProgram.AT_EGRESS_HOOK) as fd:
        first = syscall.program_info(fd).id
    assert load.ensure_loaded(pins, Sizes(16)) == build
    with opened(pins.build(build) / HookProgram.AT_EGRESS_HOOK) as fd:
        assert syscall.program_info(fd).id == first


def test_another_build_takes_over_the_maps(pins: Pins, tmp_path: Path) -> None:
    """An upgrade keeps each bucket and the size of the maps."""
    load.ensure_loaded(pins, Sizes(16))
    with opened(pins.maps / "tb_meters") as fd:
        before = syscall.map_info(fd)
    build = load.ensure_loaded(pins, Sizes(32), changed(tmp_path, "TB_DROP = 2", "TB_DROP = 2 + 0"))
    with opened(pins.maps / "tb_meters") as fd:
        assert syscall.map_info(fd) == before
    assert len(list(pins.programs.iterdir())) == 2
    pins.remove_other_builds(build)
    assert [folder.name for folder in pins.programs.iterdir()] == [build]


def test_a_build_without_the_map_of_flows_is_upgraded_and_read(pins: Pins) -> None:
    """Each bucket stays. Such a build, before an upgrade or after a rollback, has FIFO queues."""
    load.ensure_loaded(pins, Sizes(16))
    (pins.maps / FLOWS).unlink()
    limit = config(bits_per_s=10**6, burst_bytes=10**5, max_delay_q=256, longest_backlog_q=256)
    with Slots(pins) as slots:
        slots.write(3, Slot(OWNER, limit), fresh=True)
        before = slots.meters(3)
        assert slots.read()[3].config == limit
    shutil.rmtree(pins.programs)
    load.ensure_loaded(pins, Sizes(32))
    with opened(pins.maps / FLOWS) as fd:
        assert syscall.map_info(fd).max_entries == 16
    with Slots(pins) as slots:
        assert slots.meters(3) == before
        slots.write(4, Slot(OWNER, limit), fresh=True)


def test_a_map_of_flows_of_another_size_is_rejected(pins: Pins) -> None:
    """Bcc would open the map without a check."""
    load.ensure_loaded(pins, Sizes(16))
    (pins.maps / FLOWS).unlink()
    with opened(pins.maps / "tb_meters") as fd:
        syscall.pin(fd, pins.maps / FLOWS)
    with pytest.raises(LoadError, match="tb_flows: does not match this layout version"):
        load.ensure_loaded(pins, Sizes(16))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (".now_ns = now_ns", ".now_ns = no_such_thing", "no_such_thing"),
        ("|| !ctx.stats)", ")", "map_value_or_null"),
    ],
    ids=["compiler", "verifier"],
)
def test_a_rejected_program_is_reported_in_one_line(
    pins: Pins, tmp_path: Path, before: str, after: str, message: str
) -> None:
    """The error contains the relevant lines, and the agent keeps the loaded programs."""
    good = load.ensure_loaded(pins, Sizes(16))
    with pytest.raises(LoadError) as caught:
        load.ensure_loaded(pins, Sizes(16), changed(tmp_path, before, after))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert load.load_or_keep(pins, Sizes(16), changed(tmp_path / "again", before, after))[0] == good
    assert [folder.name for folder in pins.programs.iterdir()] == [good]


def test_a_pin_of_another_map_is_rejected(pins: Pins) -> None:
    """Bcc would open the map without a check of its sizes."""
    load.ensure_loaded(pins, Sizes(16))
    (pins.maps / "tb_config").unlink()
    with opened(pins.maps / "tb_meters") as fd:
        syscall.pin(fd, pins.maps / "tb_config")
    with pytest.raises(LoadError, match="tb_config: does not match this layout version"):
        load.ensure_loaded(pins, Sizes(16))


def test_an_aborted_loader_is_reported() -> None:
    """LLVM aborts the process with SIGABRT on an internal error."""
    assert load._cause(-6, "LLVM ERROR: bad\n") == "the loader was killed by SIGABRT; LLVM ERROR: bad"


def test_a_failed_load_leaves_nothing(pins: Pins, tmp_path: Path) -> None:
    """A failed load pins no part of the build, and the next load succeeds."""
    with pytest.raises(LoadError):
        load.ensure_loaded(pins, Sizes(16), changed(tmp_path, "int at_ingress_hook", "int other_name"))
    assert build_of(source_folder()) == load.ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        assert slots.count == 16
