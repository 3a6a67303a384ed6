"""The wait for the loader, a child process that compiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenbucket.bpf import load
from tokenbucket.bpf.pins import Pins, Sizes
from tokenbucket.errors import LoadError


@pytest.fixture(autouse=True)
def _hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a loader that does not end by itself."""
    program = tmp_path / "loader"
    program.write_text("#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    monkeypatch.setattr(load.sys, "executable", str(program))


def test_a_loader_that_hangs_ends_with_the_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """End it, because a signal to the agent does not reach its child."""
    with pytest.raises(LoadError, match="the process ends"):
        load._run_loader(tmp_path, Pins(tmp_path), Sizes(), lambda: True)
    assert not caplog.records


def test_a_loader_that_hangs_is_reported_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Report it, because no pod gets a limit until it ends."""
    monkeypatch.setattr(load, "_LONG_S", 0)
    monkeypatch.setattr(load, "LOAD_TIMEOUT_S", 1)
    with pytest.raises(LoadError, match="no result after 1 s"):
        load._run_loader(tmp_path, Pins(tmp_path), Sizes(), lambda: False)
    assert [record.message for record in caplog.records] == ["loading the program takes long"]
