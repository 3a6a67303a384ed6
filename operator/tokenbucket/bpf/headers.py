"""Kernel headers for bcc.

bcc wants a kernel tree to compile against. The program uses none of its types, so the headers need not
match the running kernel; any complete set will do. Looked for, in this order: the folder named by
``TOKENBUCKET_KERNEL_HEADERS``, the running kernel's, and Debian's linux-headers packages, whose two halves
(common and architecture) are merged by links, because bcc can use neither alone.
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
    """Yields a folder for ``BCC_KERNEL_SOURCE``. Raises UnsupportedError when no headers are found."""
    named = os.environ.get(VARIABLE)
    own = Path("/lib/modules", platform.release(), "build")
    if named or own.exists():
        yield Path(named or own)
        return
    common, specific = _debian_halves()
    with TemporaryDirectory(prefix="tokenbucket-headers-") as folder:
        _merge(Path(folder), common, specific)
        yield Path(folder)


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
