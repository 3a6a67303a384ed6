"""The parts that kind needs on a machine without a container registry: a dockerd and an image of a node."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster.binaries import Binaries, binaries, kubeadm
from cluster.buildah import buildah
from cluster.command import run
from cluster.images import Image, base_image, build_image, pause_image
from cluster.store import build_once, digest
from cluster.versions import versions

_FILES = Path(__file__).parent
NODE_TAG = "localhost/kind-node:1"
_CONTROL_PLANE_TAG = "localhost/kubernetes:1"
_ENGINE_TAG = "localhost/dockerd:1"
_PROGRAMS = ("kubelet", "kubectl")
Say = Callable[[str], None]


def engine(say: Say) -> Path:
    """Return the folder of a Debian with dockerd, for ``engine/run.sh``."""
    image = build_image(_ENGINE_TAG, _FILES / "engine", say=say)

    def unpack(target: Path) -> None:
        container = buildah("from", "--pull=never", image.tag, part=_ENGINE_TAG).strip()
        try:
            root = buildah("mount", container, part=_ENGINE_TAG).strip()
            run(["cp", "--archive", f"{root}/.", target], part=_ENGINE_TAG)
        finally:
            buildah("rm", container, part=_ENGINE_TAG)

    return build_once("engine", digest(image.identity), unpack)


def node_image(say: Say) -> Image:
    """Return the image of a node: Debian, systemd, containerd, kubeadm, kubelet, and images of pods."""
    programs = binaries(say)
    pods = [pause_image(programs), base_image(say), _control_plane_image(programs, say)]
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copytree(_FILES / "node", context, dirs_exist_ok=True)
        _copy_programs(programs, context, say)
        (context / "images").mkdir()
        for image in pods:
            shutil.copy(image.archive, context / "images" / f"{image.archive.parent.name}.tar")
        (context / "version").write_text(f"v{versions().kubernetes}\n")
        (context / "names").write_text(_image_names(say))
        return build_image(NODE_TAG, context, say=say)


def _control_plane_image(programs: Binaries, say: Say) -> Image:
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copy(_FILES / "control-plane" / "Dockerfile", context)
        shutil.copy(programs.kubernetes / "kube", context)
        return build_image(_CONTROL_PLANE_TAG, context, say=say)


def _copy_programs(programs: Binaries, context: Path, say: Say) -> None:
    folder = context / "programs"
    shutil.copytree(programs.containerd, folder)
    shutil.copy(kubeadm(say) / "kubeadm", folder)
    shutil.copy(programs.kubernetes / "kube", folder)
    for name in _PROGRAMS:
        (folder / name).symlink_to("kube")
    shutil.copytree(programs.cni, context / "plugins")


def _image_names(say: Say) -> str:
    """Return the names that kubeadm gives the images of the control plane, one a line."""
    release = f"--kubernetes-version=v{versions().kubernetes}"
    return run([kubeadm(say) / "kubeadm", "config", "images", "list", release], part="kubeadm")
