"""promtool, of Debian's package of Prometheus: unpacked, not installed, which would start a server."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from cluster.store import build_once, digest


def promtool() -> Path:
    """The program: the machine's own, or Debian's. Raises CalledProcessError where it cannot be had."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    release = platform.freedesktop_os_release()["VERSION_ID"]
    return build_once("promtool", digest("promtool", release, platform.machine()), _unpack) / "promtool"


def _unpack(target: Path) -> None:
    subprocess.run(
        ["apt-get", "download", "prometheus"], cwd=target, check=True, capture_output=True, text=True
    )
    [package] = target.glob("prometheus_*.deb")
    whole = target / "package"
    subprocess.run(["dpkg", "--extract", package, whole], check=True, capture_output=True, text=True)
    (whole / "usr/bin/promtool").rename(target / "promtool")
    shutil.rmtree(whole)
    package.unlink()
