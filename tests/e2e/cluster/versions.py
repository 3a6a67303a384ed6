"""The versions of everything the cluster is made of, from ``versions.toml``."""

from __future__ import annotations

import functools
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

KUBERNETES = "TOKENBUCKET_E2E_KUBERNETES"
"""Environment variable: the Kubernetes of the cluster, as 1.34; its default is the newest."""
_FILE = Path(__file__).parent / "versions.toml"


@dataclass(frozen=True, slots=True)
class Debian:
    """Which Debian the images are made from, and the name the base image gets."""

    suite: str
    tag: str


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions without a leading ``v``."""

    go_wheel: str
    go_minimum: str
    kubernetes: str
    kubernetes_siblings: tuple[str, ...]
    containerd: str
    cni: str
    cilium: str
    helm: str
    helm4: str
    kustomize: str
    helm_unittest: str
    actionlint: str
    kind: str
    debian: Debian
    vm_wheel: str
    vm_series: str


@functools.cache
def versions() -> Versions:
    """Return the content of ``versions.toml``."""
    table = tomllib.loads(_FILE.read_text())
    kubernetes = _kubernetes(table["kubernetes"]["versions"])
    return Versions(
        go_wheel=table["go"]["wheel"],
        go_minimum=table["go"]["minimum"],
        kubernetes=kubernetes,
        kubernetes_siblings=tuple(table["kubernetes"]["siblings"].get(kubernetes, ())),
        containerd=table["containerd"]["version"],
        cni=table["cni"]["version"],
        cilium=table["cilium"]["version"],
        helm=table["helm"]["version"],
        helm4=table["helm4"]["version"],
        kustomize=table["kustomize"]["version"],
        helm_unittest=table["helm_unittest"]["version"],
        actionlint=table["actionlint"]["version"],
        kind=table["kind"]["version"],
        debian=Debian(**table["debian"]),
        vm_wheel=table["vm"]["wheel"],
        vm_series=table["vm"]["series"],
    )


def _kubernetes(known: list[str]) -> str:
    """Return the version that the environment names by its beginning, or the last, the newest."""
    wanted = os.environ.get(KUBERNETES)
    if not wanted:
        return known[-1]
    for version in known:
        if f"{version}.".startswith(f"{wanted}."):
            return version
    raise ClusterError(KUBERNETES, f"{wanted} is not in {_FILE.name}; use one of {', '.join(known)}")
