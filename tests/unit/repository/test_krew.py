"""The manifest for krew fits krew's rules and the archive that the repository builds."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenbucket import __version__

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the archive and the manifest."""
    folder = tmp_path_factory.mktemp("krew")
    subprocess.run([sys.executable, ROOT / "hack/release/krew/build.py", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def manifest(built: Path) -> dict[str, Any]:
    return yaml.safe_load((built / "tokenbucket.yaml").read_text())


def unpack(built: Path, folder: Path) -> None:
    folder.mkdir()
    subprocess.run(["tar", "xzf", built / "kubectl-tokenbucket.tar.gz", "-C", folder], check=True)


def test_the_manifest_has_the_fields_that_krew_requires(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
    assert manifest["kind"] == "Plugin"
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", manifest["metadata"]["name"])
    spec = manifest["spec"]
    assert spec.keys() <= {
        "version", "homepage", "shortDescription", "description", "caveats", "platforms",
    }  # fmt: skip
    assert spec["version"] == f"v{__version__}"
    assert 0 < len(spec["shortDescription"]) <= 50
    for platform in spec["platforms"]:
        assert platform.keys() == {"selector", "uri", "sha256", "files", "bin"}
        assert re.fullmatch(
            rf"https://\S+/v{re.escape(__version__)}/kubectl-tokenbucket\.tar\.gz", platform["uri"]
        )
        for rule in platform["selector"]["matchExpressions"]:
            assert (rule["key"], rule["operator"]) == ("os", "In")
            assert set(rule["values"]) <= {"linux", "darwin", "windows"}


def test_the_manifest_names_the_archive(built: Path, manifest: dict[str, Any]) -> None:
    archive = built / "kubectl-tokenbucket.tar.gz"
    platform = manifest["spec"]["platforms"][0]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == platform["sha256"]
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert platform["files"] == [{"from": "*", "to": "."}]  # so that names in the archive are those installed
    assert members[platform["bin"]].mode & 0o111
    assert "LICENSE" in members
    assert all(member.isfile() and "/" not in name for name, member in members.items())


def test_the_same_commit_gives_the_same_archive(built: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "hack/release/krew/build.py", tmp_path], check=True)
    for name in ("kubectl-tokenbucket.tar.gz", "tokenbucket.yaml"):
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


@pytest.fixture
def krew(built: Path, tmp_path: Path) -> Path:
    """Return krew's folder of programs, with the links of krew and of the caveats in the manifest."""
    installed, programs = tmp_path / "store" / "tokenbucket" / f"v{__version__}", tmp_path / "bin"
    installed.parent.mkdir(parents=True)
    unpack(built, installed)
    programs.mkdir()
    (programs / "kubectl-tokenbucket").symlink_to(installed / "kubectl-tokenbucket")
    (programs / "kubectl_complete-tokenbucket").symlink_to("kubectl-tokenbucket")
    return programs


def started(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a program with the environment below the folder of krew."""
    variables = os.environ | {"XDG_DATA_HOME": str(program.parents[1] / "data")}
    return subprocess.run([program, *arguments], env=variables, capture_output=True, text=True)


def provide_environment(krew: Path) -> None:
    """Provide the Python environment, because a first run needs PyPI."""
    environment = krew.parent / "data" / "kubectl-tokenbucket" / __version__ / "bin"
    environment.mkdir(parents=True)
    (environment / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (environment / "python").chmod(0o755)


def test_the_installed_plugin_runs_from_a_link_in_its_own_environment(krew: Path) -> None:
    """Link the file as krew does."""
    provide_environment(krew)
    assert started(krew / "kubectl-tokenbucket", "--version").stdout == f"kubectl tokenbucket {__version__}\n"


def test_the_link_of_the_caveats_completes_words(krew: Path, manifest: dict[str, Any]) -> None:
    """Get the words after the name of the plugin from kubectl. The last one may be empty."""
    link = "ln -s kubectl-tokenbucket ~/.krew/bin/kubectl_complete-tokenbucket"
    assert link in manifest["spec"]["caveats"]
    provide_environment(krew)
    program = krew / "kubectl_complete-tokenbucket"
    assert started(program, "s").stdout == "status\nsuggest\nsysdump\n:4\n"
    assert "completion" in started(program, "").stdout.splitlines()
    assert started(program, "top", "--sort", "w").stdout == "wait\n:4\n"


def test_completion_before_the_first_run_installs_nothing(krew: Path) -> None:
    done = started(krew / "kubectl_complete-tokenbucket", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (krew.parent / "data").exists()


def test_the_launcher_names_the_fix_without_a_suitable_python(built: Path, tmp_path: Path) -> None:
    unpack(built, tmp_path / "store")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "readlink", "sh"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    result = subprocess.run(
        [tmp_path / "store/kubectl-tokenbucket"], env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (
        3,
        "kubectl tokenbucket: no Python 3.11 to 3.13 in PATH; install one\n",
    )


def test_the_plugin_is_tested_with_the_versions_that_it_ships() -> None:
    shipped = (REQUIREMENTS / "cli.txt").read_text().splitlines()[1:]
    assert shipped
    assert set(shipped) <= set((REQUIREMENTS / "dev.txt").read_text().splitlines())
