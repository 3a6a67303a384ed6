"""promtool, from Debian's package of Prometheus: unpacked, not installed, as that would start a server."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from cluster.command import run
from cluster.errors import ClusterError
from cluster.store import build_once, digest


def promtool() -> Path:
    """Return the path of promtool: the machine's own, or Debian's, unpacked if the cache lacks it.

    Raises:
        ClusterError: the package cannot be downloaded, or must not be now.
    """
    found = shutil.which("promtool")
    if found:
        return Path(found)
    release = platform.freedesktop_os_release()["VERSION_ID"]
    return build_once("promtool", digest("promtool", release, platform.machine()), _unpack) / "promtool"


def _unpack(target: Path) -> None:
    _download("prometheus", target)
    [package] = target.glob("prometheus_*.deb")
    whole = target / "package"
    run(["dpkg", "--extract", package, whole], part="promtool")
    (whole / "usr/bin/promtool").rename(target / "promtool")
    shutil.rmtree(whole)
    package.unlink()


def _download(package: str, folder: Path) -> None:
    """Download a package. A list of packages that is missing or old is updated first."""
    download = ["apt-get", "download", "--quiet=2", package]
    try:
        run(download, part="promtool", cwd=folder)
    except ClusterError:
        run(["apt-get", "update", "--quiet=2"], part="promtool")
        run(download, part="promtool", cwd=folder)
