"""Images without a registry: each is built here, kept in the cache and handed to the nodes as an archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import debian
from .binaries import Binaries
from .buildah import bud, buildah, have_base
from .store import build_once, digest, keep_newest

_KEPT = 8
"""How many images the cache holds: each change of a Dockerfile's context makes one."""
PAUSE_TAG = "localhost/pause:1"
CLIENT_TAG = "localhost/client:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CLIENT = Path(__file__).parent / "dockerfiles" / "client"


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a file that ``ctr image import`` and ``docker load`` take."""

    tag: str
    archive: Path

    @property
    def identity(self) -> str:
        """Changes when the image's content does."""
        return f"{self.tag} {self.archive.parent.name}"


def standard_images(programs: Binaries, say: Callable[[str], None] = lambda _: None) -> tuple[Image, ...]:
    """The pause image and the client image, which every node has."""
    return pause_image(programs), build_image(CLIENT_TAG, _CLIENT, say=say)


def pause_image(programs: Binaries) -> Image:
    """An image of one static program."""
    program = programs.pause_program
    folder = build_once(
        "image-pause", digest(program), lambda target: _single_program(program, target / "image.tar")
    )
    return Image(PAUSE_TAG, folder / "image.tar")


def build_image(
    tag: str,
    context: Path,
    dockerfile: Path | None = None,
    arguments: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Image:
    """Builds a Dockerfile whose only base is ``debian:trixie-slim``. Steps whose input is the same are not
    repeated. ``arguments`` are build arguments, "NAME=value".

    Raises ClusterError with the end of the build's output.
    """
    have_base(debian.root_archive(say))
    file = dockerfile or context / "Dockerfile"
    say(f"image {tag}")
    options = [f"--build-arg={argument}" for argument in arguments]
    bud("--layers", *options, "--tag", tag, "--file", file, context, part=f"image {tag}")
    return _exported(tag)


def _exported(tag: str) -> Image:
    identity = buildah("images", "--quiet", "--no-trunc", tag, part=f"image {tag}").strip()
    source = identity.removeprefix("sha256:")

    def export(target: Path) -> None:
        buildah("push", source, f"docker-archive:{target / 'image.tar'}:{tag}", part=f"image {tag}")

    built = Image(tag, build_once("image", digest(tag, source), export) / "image.tar")
    keep_newest("image", _KEPT)
    return built


def _single_program(program: Path, archive: Path) -> None:
    """An archive as ``docker save`` writes it, of an image with one layer with one file."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_TAG], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": config, "manifest.json": json.dumps(manifest).encode()}
    archive.write_bytes(_tar({name: (content, 0o644) for name, content in files.items()}))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of files given as name: (content, mode); the same input gives the same bytes."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()
