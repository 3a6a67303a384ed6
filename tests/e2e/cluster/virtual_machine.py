"""A virtual machine: a Debian kernel with its modules, started with this machine's files as its own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import debian
from .buildah import bud, have_base
from .command import run
from .errors import ClusterError
from .store import build_once, digest
from .versions import versions

_DOCKERFILES = Path(__file__).parent / "dockerfiles"
_MEMORY = "5G"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as its package lays it out, below ``folder``."""

    folder: Path

    @property
    def image(self) -> Path:
        """The file to boot."""
        found = sorted(self.folder.glob("boot/vmlinuz-*"))
        if not found:
            raise ClusterError("kernel", f"{self.folder}: no boot/vmlinuz-*")
        return found[-1]


def kernel(say: Callable[[str], None] = lambda _: None) -> Kernel:
    """The Debian suite's newest kernel, from its package, if the cache lacks it."""
    dockerfile = _DOCKERFILES / "kernel" / "Dockerfile"

    def build(target: Path) -> None:
        say(f"unpacking the kernel of Debian {versions().debian.suite}")
        have_base(debian.root_archive(say))
        bud("--volume", f"{target}:/out", "--file", dockerfile, dockerfile.parent, part="kernel package")
        # Where tools look for modules; Debian has moved them below /usr.
        if not (target / "lib").exists():
            (target / "lib").symlink_to("usr/lib")
        run(["depmod", "--basedir", target, _release(target)], part="kernel modules")

    return Kernel(build_once("kernel", digest(versions().debian.suite, dockerfile), build))


def launcher() -> Path:
    """The folder with virtme-ng."""
    wheel = versions().vm_wheel
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"]
    return build_once(
        "vm", digest(wheel, sys.version), lambda target: _discard(run([*pip, target, wheel], part=wheel))
    )


def argv(
    booted: Kernel,
    disk: Path,
    writable: Sequence[Path],
    tap: str,
    hardware_address: str,
    command: Sequence[str | Path],
) -> list[str]:
    """The command line that boots it, runs ``command`` as root in it, and ends when that ends.

    The machine sees all files read-only, but for the folders ``writable``. Its network is the device ``tap``.
    What it writes to ``disk`` is lost when it ends.
    """
    devices = (
        f"-drive file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe"
        f" -netdev tap,id=net,ifname={tap},script=no,downscript=no"
        f" -device virtio-net-pci,netdev=net,mac={hardware_address}"
    )
    folder = launcher()
    boot = [
        folder / "bin" / "vng",
        "--run",
        booted.image,
        "--user",
        "root",
        "--memory",
        _MEMORY,
        "--cpus",
        "2",
        # A KVM inside a virtual machine may be there and not work: only on demand.
        *(() if os.environ.get("TOKENBUCKET_E2E_KVM") == "1" else ("--disable-kvm",)),
        *(f"--rwdir={path}" for path in writable),
        f"--qemu-opts={devices}",
        "--",
        shlex.join(map(str, command)),
    ]
    # It wants a terminal, and its own folder in the search paths.
    env = [f"PYTHONPATH={folder}", f"PATH={folder / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"]
    return [
        "env",
        *env,
        "script",
        "--quiet",
        "--return",
        "--command",
        shlex.join(map(str, boot)),
        "/dev/null",
    ]


def _release(folder: Path) -> str:
    return max(path.name for path in (folder / "lib" / "modules").iterdir())


def _discard(_: str) -> None:
    return None
