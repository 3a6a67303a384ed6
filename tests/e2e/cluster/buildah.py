"""buildah with a store of its own, so that no other use of it on this machine is touched."""

from __future__ import annotations

from pathlib import Path

from .command import run
from .store import cache_root, locked
from .versions import versions


def bud(*words: str | Path, part: str, stdin: str | None = None) -> None:
    """Build a Dockerfile. Nothing is pulled: its bases must be in the store."""
    buildah("bud", "--isolation", "chroot", "--pull=never", *words, part=part, stdin=stdin)


def buildah(*words: str | Path, part: str, stdin: str | None = None) -> str:
    """Run a command of buildah at low priority."""
    root = cache_root() / "buildah"
    store = ["--root", str(root / "store"), "--runroot", str(root / "run")]
    return run(["nice", "-n", "10", "buildah", *store, *words], part=part, stdin=stdin)


def have_base(root: Path) -> None:
    """Give the store the Debian file system ``root.tar``, if it lacks it, by the name Dockerfiles use."""
    marker = f"localhost/debian:{root.parent.name}"
    with locked(cache_root() / "locks" / "base-image"):
        if not buildah("images", "--quiet", "--filter", f"reference={marker}", part="base image").strip():
            dockerfile = 'FROM scratch\nADD root.tar /\nCMD ["bash"]\n'
            names = ["--tag", marker, "--tag", versions().debian.tag]
            bud(*names, "--file", "-", root.parent, part="base image", stdin=dockerfile)
