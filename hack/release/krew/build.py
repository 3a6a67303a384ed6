"""Build the archive of the kubectl plugin and its manifest for krew in a folder.

The same commit gives the same archive, byte by byte.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ARCHIVE, MANIFEST = "kubectl-tokenbucket.tar.gz", "tokenbucket.yaml"


def wheel(folder: Path) -> Path:
    """Build the wheel in a folder. Needs no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("tokenbucket-*-py3-none-any.whl"))


def archive(files: dict[str, Path]) -> bytes:
    """Return a tar.gz file without times and owners."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o755 if name == "kubectl-tokenbucket" else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def build(target: Path) -> None:
    """Write the archive and the manifest."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        built = wheel(Path(folder))
        files = {
            "LICENSE": ROOT / "LICENSE",
            "kubectl-tokenbucket": HERE / "kubectl-tokenbucket",
            "requirements.txt": ROOT / "requirements" / "cli.txt",
            built.name: built,
        }
        content = archive(files)
        version = built.name.split("-")[1]
    (target / ARCHIVE).write_bytes(content)
    manifest = (HERE / MANIFEST).read_text().partition("\n")[2]
    manifest = manifest.replace("VERSION", version).replace("SHA256", hashlib.sha256(content).hexdigest())
    (target / MANIFEST).write_text(manifest)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
