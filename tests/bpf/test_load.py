"""Loading: what goes wrong is said in one line, and what was loaded stays."""

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
    """A place for pins, empty."""
    mount_bpffs()
    pins = Pins(Path(f"/sys/fs/bpf/load_{os.getpid()}"))
    yield pins
    pins.remove()


def changed(tmp_path: Path, before: str, after: str) -> Path:
    """The C source with one change."""
    folder = tmp_path / "source"
    tmp_path.mkdir(exist_ok=True)
    shutil.copytree(source_folder(), folder)
    file = folder / "token_bucket.c"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    return folder


def test_loading_twice_loads_once(pins: Pins) -> None:
    """The second time there is nothing to compile: the same programs."""
    build = load.ensure_loaded(pins, Sizes(16))
    with opened(pins.build(build) / HookProgram.AT_EGRESS_HOOK) as fd:
        first = syscall.program_info(fd).id
    assert load.ensure_loaded(pins, Sizes(16)) == build
    with opened(pins.build(build) / HookProgram.AT_EGRESS_HOOK) as fd:
        assert syscall.program_info(fd).id == first


def test_another_build_takes_over_the_maps(pins: Pins, tmp_path: Path) -> None:
    """An upgrade keeps every bucket, and the size of the maps."""
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
    """Every bucket stays. Such a build, before an upgrade or after a rollback, has FIFO queues."""
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
    """Bcc would open it without a check."""
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
def test_a_refused_program_is_one_readable_error(
    pins: Pins, tmp_path: Path, before: str, after: str, message: str
) -> None:
    """The lines that matter, and what was loaded before is still there."""
    good = load.ensure_loaded(pins, Sizes(16))
    with pytest.raises(LoadError) as caught:
        load.ensure_loaded(pins, Sizes(16), changed(tmp_path, before, after))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert load.load_or_keep(pins, Sizes(16), changed(tmp_path / "again", before, after))[0] == good
    assert [folder.name for folder in pins.programs.iterdir()] == [good]


def test_a_pin_that_is_not_our_map_is_refused(pins: Pins) -> None:
    """Bcc would take it without a look at its sizes."""
    load.ensure_loaded(pins, Sizes(16))
    (pins.maps / "tb_config").unlink()
    with opened(pins.maps / "tb_meters") as fd:
        syscall.pin(fd, pins.maps / "tb_config")
    with pytest.raises(LoadError, match="tb_config: does not match this layout version"):
        load.ensure_loaded(pins, Sizes(16))


def test_a_loader_that_is_aborted_is_said_so() -> None:
    """LLVM ends a process that it does not like with SIGABRT."""
    assert load._cause(-6, "LLVM ERROR: bad\n") == "the loader was killed by SIGABRT; LLVM ERROR: bad"


def test_nothing_is_kept_of_a_load_that_failed_at_once(pins: Pins, tmp_path: Path) -> None:
    """No half of a build, and the next one works."""
    with pytest.raises(LoadError):
        load.ensure_loaded(pins, Sizes(16), changed(tmp_path, "int at_ingress_hook", "int other_name"))
    assert build_of(source_folder()) == load.ensure_loaded(pins, Sizes(16))
    with Slots(pins) as slots:
        assert slots.count == 16
