"""The image of the operator, built from this checkout."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.buildah import buildah
from cluster.images import Image, build_image

TAG = "localhost/tokenbucket:test"
LAYOUT_TAG = "localhost/tokenbucket:layout"
REPOSITORY = Path(__file__).parents[2]
LABELS = {"version": "0.1.0-test", "revision": "0123456789abcdef", "created": "2026-01-01T00:00:00Z"}
_PART = f"image {TAG}"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The image's file system in a folder, and its configuration as in the OCI specification."""

    root: Path
    config: dict[str, Any]


@functools.cache
def operator_image() -> Image:
    """Build the image once per test run. Raises ClusterError with the end of the output."""
    arguments = [f"{name.upper()}={value}" for name, value in LABELS.items()]
    return build_image(TAG, REPOSITORY, arguments=arguments)


@functools.cache
def layout_image() -> Image:
    """Build the same program with another version of the layout of its pins."""
    context = Path(__file__).parent / "other_layout"
    return build_image(LAYOUT_TAG, context, arguments=[f"IMAGE={TAG}"], base=operator_image())


@contextlib.contextmanager
def unpacked(image: Image) -> Iterator[Unpacked]:
    """Yield the files of the image, which tests read and run but do not change."""
    described = json.loads(buildah("inspect", "--type", "image", image.tag, part=_PART))
    container = buildah("from", "--pull=never", image.tag, part=_PART).strip()
    try:
        root = Path(buildah("mount", container, part=_PART).strip())
        yield Unpacked(root, described["OCIv1"]["config"])
    finally:
        buildah("rm", container, part=_PART)
