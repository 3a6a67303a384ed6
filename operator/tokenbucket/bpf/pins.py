"""Paths of the pinned maps and programs, and checks of the pins.

::

    /sys/fs/bpf/tokenbucket/v2/             v2 is the layout version of layout.h
        maps/tb_config tb_meters tb_stats tb_owners tb_flows tb_peers tb_node
        programs/<build>/at_egress_hook at_ingress_hook
        stubs/<hook>_<slot>_<copy>      tcx programs (bpf/stubs.py)
    /sys/fs/bpf/tokenbucket/links/      tcx links of all layout versions (bpf/tcx.py)

``<build>`` is a digest of the C source. All builds of a layout version share its maps, so an upgrade keeps
every bucket. Another layout version has another folder. bcc opens existing pins without a check of their
sizes, so this module checks them before.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenbucket import layout
from tokenbucket.bpf import syscall
from tokenbucket.errors import IgnoreErrno, KernelError, LoadError

BPFFS = Path("/sys/fs/bpf")
ROOT = BPFFS / "tokenbucket"
DEFAULT_SLOTS = 2048
DEFAULT_PEERS = 65536
_BPFFS_MAGIC = 0xCAFE4A11


class HookProgram(enum.StrEnum):
    """Entry points of the program: one for each kind of hook."""

    AT_EGRESS_HOOK = "at_egress_hook"
    AT_INGRESS_HOOK = "at_ingress_hook"


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Type and sizes of a map of this layout version."""

    type: int
    value_size: int
    key_size: int = 4


MAPS = {
    "tb_config": MapLayout(syscall.MapType.ARRAY, ctypes.sizeof(layout.Config)),
    "tb_meters": MapLayout(syscall.MapType.ARRAY, ctypes.sizeof(layout.Meters)),
    "tb_stats": MapLayout(syscall.MapType.PERCPU_ARRAY, ctypes.sizeof(layout.Stats)),
    "tb_owners": MapLayout(syscall.MapType.ARRAY, ctypes.sizeof(layout.Owner)),
}
"""The maps with one element for each slot."""
FLOWS = "tb_flows"
FLOWS_MAP = MapLayout(syscall.MapType.ARRAY, ctypes.sizeof(layout.Flows))
"""The map of the flows of each slot. Builds before fair departures do not have it."""
PEERS = "tb_peers"
PEERS_MAP = MapLayout(
    syscall.MapType.LRU_HASH, ctypes.sizeof(layout.Peer), key_size=ctypes.sizeof(layout.PeerKey)
)
"""The map of the peers of all slots."""
NODE = "tb_node"
NODE_MAP = MapLayout(syscall.MapType.HASH, 1, key_size=16)
"""The map of the addresses of the node."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Capacity of the maps."""

    slots: int = DEFAULT_SLOTS
    peers: int = DEFAULT_PEERS


def source_folder() -> Path:
    """Return the folder of the C source, in the installed package or in the repository."""
    packaged = Path(__file__).parents[1] / "_bpf_source"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "bpf"


def build_of(source: Path) -> str:
    """Return the digest of a folder of C source, which identifies the build."""
    digest = hashlib.sha256()
    for path in sorted(source.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins of this layout version below a root folder."""

    root: Path = ROOT

    @property
    def folder(self) -> Path:
        """Folder of this layout version."""
        return self.root / f"v{layout.LAYOUT_VERSION}"

    @property
    def maps(self) -> Path:
        """Folder of the maps."""
        return self.folder / "maps"

    @property
    def links(self) -> Path:
        """Folder of the tcx links of all layout versions."""
        return self.root / "links"

    @property
    def programs(self) -> Path:
        """Folder of all builds."""
        return self.folder / "programs"

    def build(self, build: str) -> Path:
        """Return the folder of a build's programs."""
        return self.programs / build

    def has_build(self, build: str) -> bool:
        """Return whether a build is loaded."""
        return all((self.build(build) / name).exists() for name in HookProgram)

    def program_ids(self) -> set[int]:
        """Return the ids of all pinned programs, of every layout version and build."""
        return {number for folder in self.root.glob("v*") for number in program_ids(folder)}

    def last_build(self) -> str | None:
        """Return the build that was loaded last, or ``None``."""
        builds = sorted(_children(self.programs), key=lambda folder: folder.stat().st_mtime_ns)
        complete = [folder.name for folder in builds if self.has_build(folder.name)]
        return complete[-1] if complete else None

    def remove_other_builds(self, build: str) -> None:
        """Unpin every build except one. A program stays loaded until its last filter is replaced."""
        for other in _children(self.programs):
            if other.name != build:
                shutil.rmtree(other)

    def remove(self) -> bool:
        """Unpin all objects of every layout version. Return whether there were any."""
        if not self.root.exists():
            return False
        shutil.rmtree(self.root)
        return True

    def check_maps(self) -> int | None:
        """Check the pinned maps. Return their number of slots, or ``None`` if none is pinned.

        Raises:
            LoadError: a pinned map does not have the type or the sizes of this layout version.
        """
        sizes = {info.max_entries for info in self._present({**MAPS, FLOWS: FLOWS_MAP}).values()}
        self._present({PEERS: PEERS_MAP, NODE: NODE_MAP})
        if len(sizes) > 1:
            raise LoadError(
                f"{self.maps}: maps differ in size: {sorted(sizes)}; run 'tokenbucket detach --all'"
            )
        return sizes.pop() if sizes else None

    def _present(self, maps: Mapping[str, MapLayout]) -> dict[str, syscall.MapInfo]:
        found = {name: self._map_info(name) for name in maps}
        present = {name: info for name, info in found.items() if info}
        for name, info in present.items():
            if MapLayout(info.type, info.value_size, info.key_size) != maps[name]:
                problem = f"does not match this layout version: {info}"
                raise LoadError(f"{self.maps / name}: {problem}; run 'tokenbucket detach --all'")
        return present

    def _map_info(self, name: str) -> syscall.MapInfo | None:
        with IgnoreErrno(errno.ENOENT), opened(self.maps / name) as fd:
            return syscall.map_info(fd, name)
        return None


def program_ids(folder: Path) -> set[int]:
    """Return the ids of all programs that are pinned in a layout version's folder. Raises KernelError."""
    ids = set()
    for path in folder.glob("programs/*/*"):
        with opened(path) as fd:
            ids.add(syscall.program_info(fd).id)
    return ids


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Provide a file descriptor of a pinned object, and close it."""
    fd = syscall.open_pin(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31)]


def has_bpffs(path: Path = BPFFS) -> bool:
    """Return whether a bpffs is mounted at the path."""
    info = _StatFs()
    found: int = ctypes.CDLL(None).statfs(os.fsencode(path), ctypes.byref(info))
    return found == 0 and info.f_type == _BPFFS_MAGIC


def mount_bpffs(path: Path = BPFFS) -> None:
    """Mount a bpffs unless one is mounted, as tc and bpftool do. Raises KernelError."""
    if has_bpffs(path):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), None) != 0:
        raise KernelError("mount bpffs", str(path), ctypes.get_errno())
