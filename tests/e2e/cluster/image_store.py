"""The images of a node, unpacked once in the cache by containerd, and copied to each node.

A namespace node gets hard links: files of an image are never written, only put under an overlay. The virtual
machine gets a disk. Otherwise each would unpack for itself, which takes minutes in an emulated machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import node_config
from .binaries import Binaries
from .box import Box, end_root, open_root, start_guardian
from .command import run
from .errors import ClusterError
from .identity import wait_gone
from .images import Image
from .store import build_once, digest, keep_newest
from .waiting import wait_for

_ROOT = Path("var/lib/containerd")
_DISK_SIZE = "16G"
_NAME = "image-store"
_KEPT = 3
"""How many the cache holds, of stores and of disks."""


def image_store(
    images: Sequence[Image], programs: Binaries, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the folder whose ``var/lib/containerd`` holds the images."""

    def build(target: Path) -> None:
        say(f"unpacking {', '.join(image.tag for image in images)}")
        _build(target, images, programs)

    return _newest("store", build_once("store", _key(images, programs), build))


def disk(images: Sequence[Image], programs: Binaries, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the same as an ext4 file system in a file."""
    store = image_store(images, programs, say)

    def build(target: Path) -> None:
        say("making a disk of the images")
        run(
            ["mkfs.ext4", "-q", "-L", "node", "-d", store, target / "disk", _DISK_SIZE], part="disk of images"
        )

    return _newest("disk", build_once("disk", _key(images, programs), build)) / "disk"


def copy_to(node: Path, store: Path) -> None:
    """Give the node whose file system is at ``node`` the images."""
    target = node / _ROOT
    target.parent.mkdir(parents=True, exist_ok=True)
    same_disk = store.stat().st_dev == target.parent.stat().st_dev
    run(
        ["cp", "--archive", *(["--link"] if same_disk else []), store / _ROOT, target],
        part="copy of the images",
    )
    for database in target.rglob("*.db"):
        _unlink_from_store(database)


def _newest(kind: str, folder: Path) -> Path:
    keep_newest(kind, _KEPT)
    return folder


def _key(images: Sequence[Image], programs: Binaries) -> str:
    return digest(programs.containerd.name, *sorted(image.identity for image in images))


def _build(target: Path, images: Sequence[Image], programs: Binaries) -> None:
    """Run containerd in a box of its own, only to import."""
    env = {"PATH": programs.search_path}
    with tempfile.TemporaryDirectory(prefix="tokenbucket-e2e-") as scratch:
        guardian = start_guardian(programs.pause_program, env)
        try:
            _import(open_root(guardian, _NAME, Path(scratch), env), target, images, programs)
        finally:
            end_root(guardian.process)


def _import(box: Box, target: Path, images: Sequence[Image], programs: Binaries) -> None:
    box.run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    config = box.folder / "containerd.toml"
    config.write_text(node_config.containerd(programs, str(target / _ROOT)))
    box.start("containerd", [programs.containerd / "containerd", "--config", config])
    socket = Path(f"/proc/{box.init.pid}/root{node_config.CONTAINERD_SOCKET}")
    wait_for(socket.is_socket, what="it listens", among=box.components, component="containerd", timeout_s=60)
    for image in images:
        box.run(node_config.import_argv(image, programs), part=f"import of {image.tag}")
    containerd = box.component("containerd")
    os.kill(containerd.pid, signal.SIGTERM)
    if not wait_gone(containerd, 30):
        raise ClusterError(_NAME, "containerd did not end", log=box.components.log("containerd"))


def _unlink_from_store(file: Path) -> None:
    """Replace a hard link by a copy, for a file that containerd writes to."""
    copy = file.with_suffix(".copy")
    shutil.copy2(file, copy)
    copy.replace(file)
