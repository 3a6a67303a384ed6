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
from .errors import ClusterError
from .store import build_once, cache_root, digest, keep_newest, may_build
from .versions import versions

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
    """Return the images that every node has: pause, the client, and the Debian base for users' own pods."""
    return pause_image(programs), build_image(CLIENT_TAG, _CLIENT, say=say), base_image(say)


def base_image(say: Callable[[str], None] = lambda _: None) -> Image:
    """Return the Debian file system under the name of the official image, for documented commands."""
    tag = versions().debian.tag
    have_base(debian.root_archive(say))
    identity = buildah("images", "--quiet", "--no-trunc", tag, part=f"image {tag}")
    return _exported(tag, identity.split()[0])


def pause_image(programs: Binaries) -> Image:
    """Return an image of one static program."""
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
    *,
    base: Image | None = None,
) -> Image:
    """Build a Dockerfile whose only base is ``debian:trixie-slim`` or ``base``, if its input has changed.

    ``arguments`` are build arguments, "NAME=value".

    Raises:
        ClusterError: with the end of the build's output; or the image is missing and must not be built now.
    """
    file = dockerfile or context / "Dockerfile"
    bases = [base.identity if base else debian.root_archive(say).parent.name]
    inputs = digest(tag, *bases, *arguments, file, *_described(context))
    record = cache_root() / "images" / inputs
    if not _is_known(record, tag):
        may_build("image", f"image {tag}, of the files as they are now,")
        if not base:
            have_base(debian.root_archive(say))
        say(f"image {tag}")
        options = [f"--build-arg={argument}" for argument in arguments]
        bud("--layers", *options, "--tag", tag, "--file", file, context, part=f"image {tag}")
        record.parent.mkdir(exist_ok=True)
        record.write_text(buildah("images", "--quiet", "--no-trunc", tag, part=f"image {tag}"))
    return _exported(tag, record.read_text().strip())


def _is_known(record: Path, tag: str) -> bool:
    """Return whether the recorded image is still in buildah's store. It gets its tag again."""
    try:
        buildah("tag", record.read_text().strip().removeprefix("sha256:"), tag, part=f"image {tag}")
    except (FileNotFoundError, ClusterError):
        return False
    return True


def _described(context: Path) -> list[str | Path]:
    """Return names and files of a build's context, in order, without those that .dockerignore excludes."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else ["!."]
    allowed = [line[1:] for line in lines if line.startswith("!") and f"{line[1:]}/*" not in lines]
    found = {path for name in allowed for path in ((context / name), *(context / name).rglob("*"))}
    files = sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
    return [part for path in files for part in (str(path.relative_to(context)), path)]


def _exported(tag: str, identity: str) -> Image:
    source = identity.removeprefix("sha256:")

    def export(target: Path) -> None:
        buildah("push", source, f"docker-archive:{target / 'image.tar'}:{tag}", part=f"image {tag}")

    built = Image(tag, build_once("image", digest(tag, source), export) / "image.tar")
    keep_newest("image", _KEPT)
    return built


def _single_program(program: Path, archive: Path) -> None:
    """Write an archive as ``docker save`` does, of an image with one file."""
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
    """Return a tar of files given as name: (content, mode); the same input gives the same bytes."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()
