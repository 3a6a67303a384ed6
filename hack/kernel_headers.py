"""Copies the kernel headers that the program includes, about 1 MB of 57, to a new folder for the image.

The compiler reports them: bcc's own, because only bcc knows how it calls it. No map can be made while
an image is built, so the program does not compile there; by then all its headers are read.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenbucket.bpf import loader
from tokenbucket.bpf.headers import kernel_headers
from tokenbucket.bpf.pins import source_folder


def included(headers: Path) -> set[str]:
    """Return the files below ``headers`` that the program includes, by their relative paths."""
    source = source_folder()
    bcc = loader.import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    with TemporaryDirectory() as folder:
        rule = Path(folder, "rule")
        flags = ["-DTB_SLOTS=1", f'-DTB_PIN_DIR="{folder}"', "-MD", "-MF", str(rule)]
        try:
            bcc.BPF(text=loader.one_text(source / "token_bucket.c", source).encode(), cflags=flags)
        except Exception as error:  # noqa: BLE001 - bcc raises no narrower one
            print(f"as expected: {error}")
        _, _, files = rule.read_text().replace("\\\n", " ").partition(":")
    return {name for name in files.split() if (headers / name).is_file()}


def main() -> None:
    target = Path(sys.argv[1])
    with kernel_headers() as headers:
        names = included(headers)
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(headers / name, target / name)
    missing = names - included(target)
    if missing or not names:
        sys.exit(f"{target}: does not do without {', '.join(sorted(missing)) or 'any header'}")
    print(f"{target}: {len(names)} headers, {sum((target / name).stat().st_size for name in names)} bytes")


if __name__ == "__main__":
    main()
