"""A small Debian file system: what an official ``slim`` image holds, made from Debian's packages."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .command import run
from .errors import ClusterError
from .store import build_once, digest
from .versions import versions

_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
_EMPTIED = (*_LEFT_OUT, "var/cache/apt", "var/lib/apt/lists", "var/log", "dev")
_TRUST_IN_IMAGE = "etc/ssl/build-machine.pem"


@functools.cache
def mirror() -> str:
    """Return the address of the Debian packages in the configuration of apt. Raises ClusterError if apt has
    none.
    """
    wanted = ("Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted], part="Debian packages")
    found = listed.split()
    if not found:
        raise ClusterError("Debian packages", "apt has no list of Debian's packages: run 'apt-get update'")
    return found[0].rstrip("/")


def root_archive(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return ``root.tar``, built with debootstrap if the cache lacks it."""
    wanted = versions().debian
    trust = _machine_trust()

    def build(target: Path) -> None:
        say(f"building a Debian {wanted.suite} file system")
        _build(target, trust)

    key = digest(wanted.suite, mirror(), *_EMPTIED, *([trust] if trust else []))
    return build_once("debian", key, build) / "root.tar"


def _build(target: Path, trust: Path | None) -> None:
    wanted, root = versions().debian, target / "root"
    run(
        ["nice", "-n", "10", "debootstrap", "--variant=minbase", wanted.suite, root, mirror()],
        part="debootstrap",
    )
    _slim(root)
    if trust:
        _trust(root, trust)
    run(["tar", "--numeric-owner", "-C", root, "-cf", target / "root.tar", "."], part="Debian file system")
    shutil.rmtree(root)


def _slim(root: Path) -> None:
    for name in _EMPTIED:
        for entry in (root / name).iterdir() if (root / name).is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    excluded = "".join(f"path-exclude /{name}/*\n" for name in _LEFT_OUT)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(f"{excluded}path-include /usr/share/doc/*/copyright\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/hostname").unlink(missing_ok=True)


def _machine_trust() -> Path | None:
    """Return further certificates that this machine trusts, as behind an inspecting proxy."""
    named = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    return Path(named) if named and Path(named).is_file() else None


def _trust(root: Path, certificates: Path) -> None:
    """Make pip trust the same certificates in a build on this machine."""
    (root / _TRUST_IN_IMAGE).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(certificates, root / _TRUST_IN_IMAGE)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = /{_TRUST_IN_IMAGE}\n")
