"""The cache of built files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.store import ONLY_BUILT, build_once, cache_root, keep_newest

_BUILD_AND_DIE = """
import os, signal
from cluster.store import build_once
def build(target):
    (target / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
build_once("thing", "0123456789abcdef", build)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENBUCKET_E2E_CACHE", str(tmp_path))
    monkeypatch.delenv(ONLY_BUILT)


def fill(target: Path) -> None:
    """Imitate a build."""
    (target / "whole").write_text("")


def test_a_cached_build_is_not_repeated() -> None:
    """Do not call the second builder."""
    first = build_once("thing", "0123456789abcdef", fill)
    assert build_once("thing", "0123456789abcdef", lambda _: pytest.fail("built again")) == first


def test_tests_do_not_build_missing_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the make target that builds the file."""
    monkeypatch.setenv(ONLY_BUILT, "1")
    with pytest.raises(ClusterError, match="helm: not built; run 'make chart-setup'"):
        build_once("helm", "0123456789abcdef", fill)
    monkeypatch.delenv(ONLY_BUILT)
    built = build_once("helm", "0123456789abcdef", fill)
    monkeypatch.setenv(ONLY_BUILT, "1")
    assert build_once("helm", "0123456789abcdef", fill) == built


def test_a_failed_build_leaves_nothing() -> None:
    """Permit another attempt."""

    def fail(target: Path) -> None:
        fill(target)
        raise ValueError("no flour")

    with pytest.raises(ValueError, match="no flour"):
        build_once("thing", "0123456789abcdef", fail)
    assert [path.name for path in cache_root().iterdir()] == ["locks"]


def test_a_killed_build_never_looks_complete() -> None:
    """Remove its files with the next build."""
    died = subprocess.run([sys.executable, "-c", _BUILD_AND_DIE], cwd=Path(__file__).parent, check=False)
    assert died.returncode == -signal.SIGKILL
    folder = build_once("thing", "0123456789abcdef", fill)
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert sorted(path.name for path in cache_root().iterdir()) == ["locks", folder.name]


def test_the_folders_used_last_are_kept() -> None:
    """Keep those of other kinds too."""
    keys = [f"{number:016x}" for number in range(4)]
    for age, key in enumerate(reversed(keys)):
        os.utime(build_once("thing", key, fill), (age, age))
    other = build_once("thing-other", keys[0], fill)
    keep_newest("thing", 2)
    assert {path.name for path in cache_root().glob("thing-*")} == {
        f"thing-{keys[0]}",
        f"thing-{keys[1]}",
        other.name,
    }
