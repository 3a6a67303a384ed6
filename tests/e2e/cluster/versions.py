"""The versions of everything the cluster is made of, from ``versions.toml``."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

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
    containerd: str
    cni: str
    cilium: str
    helm: str
    helm4: str
    kustomize: str
    helm_unittest: str
    debian: Debian
    vm_wheel: str
    vm_series: str


@functools.cache
def versions() -> Versions:
    """What ``versions.toml`` says."""
    table = tomllib.loads(_FILE.read_text())
    return Versions(
        go_wheel=table["go"]["wheel"],
        go_minimum=table["go"]["minimum"],
        kubernetes=table["kubernetes"]["version"],
        containerd=table["containerd"]["version"],
        cni=table["cni"]["version"],
        cilium=table["cilium"]["version"],
        helm=table["helm"]["version"],
        helm4=table["helm4"]["version"],
        kustomize=table["kustomize"]["version"],
        helm_unittest=table["helm_unittest"]["version"],
        debian=Debian(**table["debian"]),
        vm_wheel=table["vm"]["wheel"],
        vm_series=table["vm"]["series"],
    )
