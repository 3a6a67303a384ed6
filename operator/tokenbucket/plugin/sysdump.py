"""Define ``kubectl tokenbucket sysdump``, which writes one redacted archive for a bug report."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import add_service_option

_ROOT = "tokenbucket-sysdump"


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "write an archive for a bug report, without addresses and secrets"
    description = (
        f"{text}: policies, TokenBucketNodes, nodes, the pods of the release with their logs, events, "
        "versions, and the live figures of pods. Pseudonyms replace addresses, uids and secrets. Names of "
        "objects stay."
    )
    command = commands.add_parser("sysdump", help=text, description=description, parents=[shared])
    command.add_argument(
        "--file",
        type=Path,
        default=Path(f"{_ROOT}.tar.gz"),
        metavar="FILE",
        help="archive (default %(default)s)",
    )
    command.add_argument(
        "--log-lines", type=int, default=2000, metavar="N", help="lines of each log (default %(default)s)"
    )
    add_service_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> PluginExit:
    """Write the archive. What cannot be read is named in it, and on the standard error."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.redaction import Redaction
    from tokenbucket.plugin.sysdump_parts import Dump

    dump = Dump(connect(options), options.log_lines, options.live_service)
    redaction = Redaction()
    with tarfile.open(options.file, "w:gz") as archive:
        for name, content in _redacted(dump, redaction):
            _add(archive, f"{_ROOT}/{name}", content.encode())
    for problem in dump.problems:
        print(f"not in the archive: {problem}", file=sys.stderr)
    print(f"{options.file}: written; names of objects are not redacted, so look at it before you publish it")
    return PluginExit.UNKNOWN if dump.problems else PluginExit.DONE


def _redacted(dump: Any, redaction: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - imported in run
    """Yield the names and the contents of the files."""
    for name, content in dump.parts():
        if isinstance(content, str):
            yield redaction.text(name), redaction.text(content)
        else:
            text = json.dumps(redaction.document(content), indent=1)
            yield redaction.text(name), f"{text}\n"
    yield "problems.txt", "".join(f"{redaction.text(problem)}\n" for problem in dump.problems)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))
