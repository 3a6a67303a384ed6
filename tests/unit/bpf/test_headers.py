"""The kernel headers that bcc compiles against."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenbucket.bpf import headers
from tokenbucket.errors import UnsupportedError


def test_an_incomplete_build_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed package leaves an empty folder, and Debian has half of the headers there."""
    build = tmp_path / "build"
    build.mkdir()
    monkeypatch.delenv(headers.VARIABLE, raising=False)
    paths = {"/lib/modules": build, str(build): build}
    monkeypatch.setattr(headers, "Path", lambda *parts: paths.get(str(parts[0]), tmp_path / "none"))
    with pytest.raises(UnsupportedError), headers.kernel_headers():
        pass
    (build / "include/generated").mkdir(parents=True)
    with pytest.raises(UnsupportedError), headers.kernel_headers():
        pass
    (build / "include/linux").mkdir()
    (build / "include/linux/kconfig.h").touch()
    with headers.kernel_headers() as found:
        assert found == build
