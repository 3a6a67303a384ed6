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
_IMAGES = ("boot/vmlinuz-*", "lib/modules/*/vmlinuz")
_MEMORY = "5G"
# Scripts that pip installs run with the Python that ran pip: it must be there when this checkout is gone.
_PYTHON = "/usr/bin/python3"
# What boots machines wants a terminal. script(1) would do, but spins while its own input is at its end.
_IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as its package lays it out, below ``folder``."""

    folder: Path

    @property
    def image(self) -> Path:
        """The file to boot."""
        # Debian has moved it to its modules.
        found = [path for place in _IMAGES for path in sorted(self.folder.glob(place))]
        if not found:
            raise ClusterError("kernel", f"{self.folder}: none of {', '.join(_IMAGES)}")
        return found[-1]


def kernel(say: Callable[[str], None] = lambda _: None) -> Kernel:
    """Return the kernel of the test cluster's machine."""
    return debian_kernel(versions().vm_series, versions().debian.suite, say)


def debian_kernel(series: str, suite: str, say: Callable[[str], None] = lambda _: None) -> Kernel:
    """Return the newest kernel of a series, such as ``6.12``, from the package of a suite of Debian."""
    dockerfile, mirror = _DOCKERFILES / "kernel" / "Dockerfile", debian.mirror()

    def build(target: Path) -> None:
        say(f"unpacking the newest kernel {series} of Debian {suite}")
        have_base(debian.root_archive(say))
        chosen = [
            f"--build-arg={name}" for name in (f"MIRROR={mirror}", f"SUITE={suite}", f"SERIES={series}")
        ]
        volume = f"--volume={target}:/out"
        bud(*chosen, volume, "--file", dockerfile, dockerfile.parent, part="kernel package")
        # Where tools look for modules; Debian has moved them below /usr.
        if not (target / "lib").exists():
            (target / "lib").symlink_to("usr/lib")
        run(["depmod", "--basedir", target, _release(target)], part="kernel modules")

    return Kernel(build_once("kernel", digest(series, suite, mirror, dockerfile), build))


def launcher() -> Path:
    """Return the folder with virtme-ng."""
    wheel = versions().vm_wheel
    pip = [_PYTHON, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"]
    return build_once(
        "vm",
        digest(wheel, _PYTHON, sys.version),
        lambda target: _discard(run([*pip, target, wheel], part=wheel)),
    )


def node_devices(disk: Path, tap: str, hardware_address: str) -> str:
    """Return a disk with the content of the file ``disk``, and a network of the device ``tap``.

    What is written to the disk is lost when the machine ends.
    """
    return (
        f"-drive file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe"
        f" -netdev tap,id=net,ifname={tap},script=no,downscript=no"
        f" -device virtio-net-pci,netdev=net,mac={hardware_address}"
    )


def argv(
    booted: Kernel,
    writable: Sequence[Path],
    command: Sequence[str | Path],
    *,
    readable: Sequence[Path] = (),
    devices: str = "",
    memory: str = _MEMORY,
    processors: int = 2,
    verbose: bool = False,
) -> list[str]:
    """Return the command line that boots it, runs ``command`` as root in it, and ends when that ends.

    The machine sees all files of this one but those in /run, /tmp and /var/tmp, of which it sees the folders
    ``readable`` and ``writable``. What it writes is lost when it ends, or refused, but in the folders
    ``writable``. With ``verbose`` it shows its console, which is slow.
    """
    folder = launcher()
    boot = [
        folder / "bin" / "vng",
        "--run",
        booted.image,
        "--user",
        "root",
        "--memory",
        memory,
        "--cpus",
        str(processors),
        # The kernel compares its timer with the processor at boot, and panics if the host is busy.
        "--append=no_timer_check",
        # A KVM inside a virtual machine may be there and not work: only on demand.
        *(() if os.environ.get("TOKENBUCKET_E2E_KVM") == "1" else ("--disable-kvm",)),
        *(("--verbose",) if verbose else ()),
        *(f"--rodir={path}" for path in readable),
        *(f"--rwdir={path}" for path in writable),
        *((f"--qemu-opts={devices}",) if devices else ()),
        "--",
        shlex.join(map(str, command)),
    ]
    # It wants its own folder in the search paths.
    env = [f"PYTHONPATH={folder}", f"PATH={folder / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"]
    return ["env", *env, sys.executable, "-c", _IN_A_TERMINAL, *map(str, boot)]


def _release(folder: Path) -> str:
    return max(path.name for path in (folder / "lib" / "modules").iterdir())


def _discard(_: str) -> None:
    return None
