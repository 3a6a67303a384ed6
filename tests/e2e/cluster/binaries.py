"""Kubernetes, etcd, containerd, CNI plugins and helm, built from their Go modules into the cache."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .command import run
from .store import build_once, digest
from .toolchain import go_run
from .versions import versions

_HERE = Path(__file__).parent
_KUBE_MAIN = _HERE / "kube" / "main.go"
_KUBEADM_MAIN = _HERE / "kubeadm" / "main.go"
_PAUSE_SOURCE = _HERE / "pause" / "pause.c"
_LDFLAGS = "-s -w"
KUBE_COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
_PLUGINS = (
    "main/bridge",
    "main/ptp",
    "main/loopback",
    "ipam/host-local",
    "meta/portmap",
    "meta/bandwidth",
    "meta/tuning",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folders of the programs."""

    kubernetes: Path
    containerd: Path
    cni: Path
    helm: Path
    pause: Path

    @property
    def search_path(self) -> str:
        """Return a value for PATH: these programs, then those of the system, and none of the user."""
        ours = ":".join(str(folder) for folder in (self.kubernetes, self.containerd, self.cni, self.helm))
        return f"{ours}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    @property
    def pause_program(self) -> Path:
        """Return the static program that only reaps the processes that it inherits."""
        return self.pause / "pause"


def binaries(say: Callable[[str], None] = lambda _: None) -> Binaries:
    """Return all programs, built if the cache lacks them. A build of all takes ten minutes on two cores."""
    wanted = versions()
    return Binaries(
        kubernetes=_built(
            "kubernetes",
            (wanted.kubernetes, *wanted.kubernetes_siblings, *KUBE_COMPONENTS, _KUBE_MAIN),
            _build_kubernetes,
            say,
        ),
        containerd=_built("containerd", (wanted.containerd, *_CONTAINERD), _build_containerd, say),
        cni=cni_plugins(say),
        helm=helm(say),
        pause=_built("pause", ("1", _PAUSE_SOURCE), _build_pause, say),
    )


def cni_plugins(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of the CNI plugins, built where the cache lacks it."""
    return _built("cni", (versions().cni, *_PLUGINS), _build_cni, say)


def helm(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of helm, built where the cache lacks it."""
    return _built("helm", (versions().helm,), _build_helm, say)


def helm4(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of helm 4, built where the cache lacks it; no part of a cluster."""
    return _built("helm4", (versions().helm4,), _build_helm4, say)


def kustomize(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of kustomize, built where the cache lacks it; no part of a cluster."""
    return _built("kustomize", (versions().kustomize,), _build_kustomize, say)


_DURATIONS = {"kubernetes": " (about 10 minutes)"}
"""Of builds that take minutes, on two processors."""


def helm_unittest(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of ``untt``, which runs a chart's own tests; no part of a cluster. Takes minutes."""
    return _built("helm-unittest", (versions().helm_unittest,), _build_helm_unittest, say)


def actionlint(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of actionlint, built if the cache lacks it; no part of a cluster."""
    return _built("actionlint", (versions().actionlint,), _build_actionlint, say)


def kubeadm(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of kubeadm, built if the cache lacks it; only kind's nodes use it."""
    recipe = (versions().kubernetes, *versions().kubernetes_siblings, _KUBEADM_MAIN)
    return _built("kubeadm", recipe, _build_kubeadm, say)


def kind_command(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of the command kind, built if the cache lacks it."""
    return _built("kind", (versions().kind,), _build_kind, say)


def _built(
    kind: str,
    recipe: tuple[str | Path, ...],
    build: Callable[[Path], None],
    say: Callable[[str], None],
) -> Path:
    """Build if the inputs in ``recipe`` have changed. Its first entry is the version."""

    def announced(target: Path) -> None:
        say(f"building {kind} {recipe[0]}{_DURATIONS.get(kind, '')}")
        build(target)

    return build_once(kind, digest(kind, _LDFLAGS, *recipe), announced)


def _build_kubernetes(target: Path) -> None:
    """Build one program for all components, which saves minutes and disk space of linking."""
    _build_in_kubernetes(_KUBE_MAIN, target / "kube")
    for component in KUBE_COMPONENTS:
        (target / component).symlink_to("kube")


def _build_kubeadm(target: Path) -> None:
    _build_in_kubernetes(_KUBEADM_MAIN, target / "kubeadm")


def _build_in_kubernetes(main: Path, program: Path) -> None:
    """Build a main package with the modules of Kubernetes."""
    version = versions().kubernetes
    source = program.parent / "source"
    source.mkdir()
    (source / "main.go").write_bytes(main.read_bytes())
    _write_module(source, version)
    go_run(["mod", "tidy"], part="kubernetes modules", cwd=source)
    stamp = _version_flags(version)
    go_run(
        ["build", f"-ldflags={_LDFLAGS} {stamp}", "-o", str(program), "."],
        part=program.name,
        cwd=source,
    )


def _write_module(source: Path, version: str) -> None:
    """Write a module that replaces the sibling modules of Kubernetes by those of the same release."""
    (source / "go.mod").write_text("module cluster\n")
    module = f"k8s.io/kubernetes@v{version}"
    answer = json.loads(go_run(["mod", "download", "-json", module], part="kubernetes modules", cwd=source))
    siblings = sorted(
        set(
            re.findall(r"^\s*(k8s\.io/[a-z0-9-]+) v0\.0\.0$", Path(answer["GoMod"]).read_text(), re.MULTILINE)
        )
    )
    release = f"v0.{version.split('.', 1)[1]}"
    replace = [f"-replace={name}={name}@{release}" for name in siblings]
    replace += [
        f"-replace=k8s.io/{name.partition('@')[0]}=k8s.io/{name}" for name in versions().kubernetes_siblings
    ]
    go_run(["mod", "edit", f"-require={module}", *replace], part="kubernetes modules", cwd=source)


def _version_flags(version: str) -> str:
    package = "k8s.io/component-base/version"
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X {package}.{name}={value}" for name, value in values.items())


def _build_containerd(target: Path) -> None:
    version = versions().containerd
    for program in _CONTAINERD:
        _install(target, f"github.com/containerd/containerd/v2/cmd/{program}@v{version}")


def _build_cni(target: Path) -> None:
    for plugin in _PLUGINS:
        _install(target, f"github.com/containernetworking/plugins/plugins/{plugin}@v{versions().cni}")


def _build_helm(target: Path) -> None:
    _install(target, f"helm.sh/helm/v3/cmd/helm@v{versions().helm}")


def _build_helm4(target: Path) -> None:
    _install(target, f"helm.sh/helm/v4/cmd/helm@v{versions().helm4}")


def _build_kustomize(target: Path) -> None:
    _install(target, f"sigs.k8s.io/kustomize/kustomize/v5@v{versions().kustomize}")


def _build_kind(target: Path) -> None:
    _install(target, f"sigs.k8s.io/kind@v{versions().kind}")


def _build_actionlint(target: Path) -> None:
    _install(target, f"github.com/rhysd/actionlint/cmd/actionlint@v{versions().actionlint}")


def _build_helm_unittest(target: Path) -> None:
    """Build in the folder of the module, because it replaces a module that it needs."""
    module = f"github.com/helm-unittest/helm-unittest@v{versions().helm_unittest}"
    answer = json.loads(go_run(["mod", "download", "-json", module], part="helm-unittest", cwd=target))
    go_run(
        ["build", f"-ldflags={_LDFLAGS}", "-o", str(target / "untt"), "./cmd/helm-unittest"],
        part="helm-unittest",
        cwd=Path(answer["Dir"]),
    )


def _install(target: Path, package: str) -> None:
    go_run(
        ["install", f"-ldflags={_LDFLAGS}", package], part=package, cwd=target, extra={"GOBIN": str(target)}
    )


def _build_pause(target: Path) -> None:
    compiler = os.environ.get("CC", "gcc")
    run([compiler, "-static", "-Os", "-s", "-o", target / "pause", _PAUSE_SOURCE], part="pause program")
