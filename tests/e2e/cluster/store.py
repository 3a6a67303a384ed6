"""A cache of built things: each in a folder named by the content it was made from, complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import ClusterError

ONLY_BUILT = "TOKENBUCKET_E2E_ONLY_BUILT"
"""Environment variable. If it is 1, a missing thing is an error instead of a build: tests set it."""
_MADE_BY = {
    "cilium": "make e2e-cilium-setup",
    "helm": "make chart-setup",
    "helm-unittest": "make chart-setup",
    "promtool": "make chart-setup",
    "kernel": "make vm-setup",
    "vm": "make vm-setup",
}
_KEY = "[0-9a-f]" * 16


def cache_root() -> Path:
    """Return the folder of built files: ``$TOKENBUCKET_E2E_CACHE``, or a cache folder of the user."""
    override = os.environ.get("TOKENBUCKET_E2E_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "tokenbucket-e2e"


def digest(*parts: str | bytes | Path) -> str:
    """Return a short hash of texts and of files' contents, in order."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        data = content.encode() if isinstance(content, str) else content
        whole.update(f"{len(data)}:".encode() + data)
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel releases when this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_once(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder ``<kind>-<key>`` of the cache; ``build`` fills it if it is not there yet.

    Two builds of the same folder do not collide, and one that fails or is killed leaves none.

    Raises:
        ClusterError: the folder is missing, and $TOKENBUCKET_E2E_ONLY_BUILT is 1.
    """
    target = cache_root() / f"{kind}-{key}"
    with locked(cache_root() / "locks" / target.name):
        if not target.exists():
            may_build(kind)
            _build(target, build)
        os.utime(target)
    return target


def may_build(kind: str, name: str = "") -> None:
    """Raise ClusterError if things must not be built now. ``name`` tells several of a kind apart."""
    if os.environ.get(ONLY_BUILT) == "1":
        make = _MADE_BY.get(kind, "make e2e-setup")
        raise ClusterError(name or kind, f"not built; run '{make}'")


def keep_newest(kind: str, count: int) -> None:
    """Remove all folders of a kind except those used last."""

    def last_used(folder: Path) -> float:
        return folder.stat().st_mtime

    for folder in sorted(cache_root().glob(f"{kind}-{_KEY}"), key=last_used, reverse=True)[count:]:
        shutil.rmtree(folder, ignore_errors=True)
        (cache_root() / "locks" / folder.name).unlink(missing_ok=True)


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".partial-{target.name}-"
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    partial.chmod(0o755)
    try:
        build(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
