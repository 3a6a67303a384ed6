"""Cilium's programs and their sources, built from its Go module into the cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .store import build_once, digest
from .toolchain import go_run
from .versions import versions

_MODULE = "github.com/cilium/cilium"
_PROGRAMS = {"cilium-agent": "daemon", "cilium-cni": "plugins/cilium-cni", "cilium-dbg": "cilium-dbg"}
# The release that Cilium asks for is a commit before it, which the module proxy need not have.
_REQUIRED = "github.com/osrg/gobgp/v4 v4.7.0"
_FLAGS = ("-tags=osusergo", "-ldflags=-s -w -X {module}/pkg/version.ciliumVersion={version}")
_FILES = {"bpf": "bpf", "pkg/k8s/apis/cilium.io/client/crds": "crds"}
"""Folders of the module that its agent reads, and the names that they get."""


@dataclass(frozen=True, slots=True)
class CiliumPrograms:
    """A folder with Cilium's agent, CNI plugin and command-line tool."""

    folder: Path

    @property
    def agent(self) -> Path:
        """The program that each node runs."""
        return self.folder / "cilium-agent"

    @property
    def debug(self) -> Path:
        """The program that asks the agent of its node."""
        return self.folder / "cilium-dbg"

    @property
    def sources(self) -> Path:
        """The C sources that the agent compiles for each node and endpoint."""
        return self.folder / "bpf"

    @property
    def crds(self) -> list[Path]:
        """The definitions of the resources that the agent reads and writes."""
        return sorted((self.folder / "crds").rglob("*.yaml"))


def cilium_programs(say: Callable[[str], None] = lambda _: None) -> CiliumPrograms:
    """Return the programs. A build takes a quarter of an hour on two cores."""
    version = versions().cilium

    def build(target: Path) -> None:
        say(f"building cilium {version}")
        _build(target, version)

    recipe = (version, _REQUIRED, *_FLAGS, *_PROGRAMS, *_FILES)
    return CiliumPrograms(build_once("cilium", digest("cilium", *recipe), build))


def _build(target: Path, version: str) -> None:
    source = target / "source"
    source.mkdir()
    required = f"require (\n\t{_MODULE} v{version}\n\t{_REQUIRED}\n)"
    # With the language version, go loads only the modules that the packages need.
    (source / "go.mod").write_text(f"module cluster\n\ngo {versions().go_minimum}\n\n{required}\n")
    flags = [flag.format(module=_MODULE, version=version) for flag in _FLAGS]
    for program, package in _PROGRAMS.items():
        argv = ["build", "-mod=mod", *flags, "-o", str(target / program), f"{_MODULE}/{package}"]
        go_run(argv, part=program, cwd=source)
    answer = json.loads(go_run(["list", "-mod=mod", "-m", "-json", _MODULE], part="cilium", cwd=source))
    for folder, name in _FILES.items():
        shutil.copytree(Path(answer["Dir"]) / folder, target / name, ignore=shutil.ignore_patterns("tests"))
