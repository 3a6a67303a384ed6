"""Finds kernel headers for bcc, which compiles against a kernel tree.

The program uses no types of the kernel, so any complete set of headers works, in this order:

1. the folder in ``TOKENBUCKET_KERNEL_HEADERS``;
2. the headers of the running kernel;
3. Debian's linux-headers packages. Links merge their common and architecture halves, because bcc needs both
   in one folder.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenbucket.errors import UnsupportedError

VARIABLE = "TOKENBUCKET_KERNEL_HEADERS"
_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}


@contextmanager
def kernel_headers() -> Iterator[Path]:
    """Provide a folder for ``BCC_KERNEL_SOURCE``. Raises UnsupportedError if there are no headers."""
    named = os.environ.get(VARIABLE)
    own = Path("/lib/modules", platform.release(), "build")
    if named or _is_complete(own):
        yield Path(named or own)
        return
    common, specific = _debian_halves()
    with TemporaryDirectory(prefix="tokenbucket-headers-") as folder:
        _merge(Path(folder), common, specific)
        yield Path(folder)


def _is_complete(tree: Path) -> bool:
    """Return False for one half of Debian's headers, and for the empty folder of a removed package."""
    return (tree / "include/generated").is_dir() and (tree / "include/linux/kconfig.h").exists()


def _debian_halves() -> tuple[Path, Path]:
    for common in sorted(Path("/usr/src").glob("linux-headers-*-common"), key=_version, reverse=True):
        for specific in sorted(common.parent.glob(common.name.removesuffix("common") + "*")):
            if (specific / "include/generated").is_dir():
                return common, specific
    raise UnsupportedError(
        f"kernel headers: none found; install linux-headers-$(dpkg --print-architecture) or set {VARIABLE}"
    )


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _merge(folder: Path, common: Path, specific: Path) -> None:
    arch = Path("arch", _ARCHITECTURES.get(platform.machine(), platform.machine()), "include")
    for part, generated in ((Path("include"), ("generated", "config")), (arch, ("generated",))):
        (folder / part).mkdir(parents=True)
        for entry in (common / part).iterdir():
            (folder / part / entry.name).symlink_to(entry)
        for name in generated:
            (folder / part / name).symlink_to(specific / part / name)
