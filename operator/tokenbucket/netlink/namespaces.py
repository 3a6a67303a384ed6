"""Network namespaces that can be reached from here, by name or through a process in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenbucket.netlink.connection import kernel_errors

_OWN = Path("/proc/thread-self/ns/net")


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """A network namespace. The inode is its identity for as long as it lives; the path leads to it."""

    inode: int
    path: Path


def own_namespace() -> Namespace:
    """The calling thread's."""
    return Namespace(_OWN.stat().st_ino, _OWN)


def namespace_at(path: Path) -> Namespace:
    """The namespace that a path leads to. Raises KernelError when there is no such path."""
    with kernel_errors("open", str(path)):
        return Namespace(path.stat().st_ino, path)


def reachable_namespaces() -> tuple[Namespace, ...]:
    """Every namespace that has a name in /run/netns or a process in it, once each, one's own too."""
    own = _OWN.stat()
    found = {own.st_ino: _OWN}
    for path in _candidates():
        try:
            status = path.stat()
        except OSError:  # ended meanwhile, or not ours to look at
            continue
        if status.st_dev == own.st_dev:  # not a plain file, left over where a name was
            found.setdefault(status.st_ino, path)
    return tuple(Namespace(inode, path) for inode, path in sorted(found.items()))


def _candidates() -> Iterator[Path]:
    named = Path("/run/netns")
    if named.is_dir():
        yield from sorted(named.iterdir())
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            yield process / "ns/net"
