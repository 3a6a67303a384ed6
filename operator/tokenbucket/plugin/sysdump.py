"""Define ``kubectl tokenbucket sysdump``, which writes one redacted archive for a bug report."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.live import add_service_option

_ROOT = "tokenbucket-sysdump"


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    text = "write an archive for a bug report, without addresses and known forms of secrets"
    description = (
        f"{text}: policies, TokenBucketNodes, nodes, the pods of the release with their logs, events, "
        "versions, and the live figures of pods. Pseudonyms replace addresses, uids, and known forms of "
        "secrets. Names of objects stay."
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
        "--log-lines", type=_lines, default=2000, metavar="N", help="lines of each log (default %(default)s)"
    )
    add_service_option(command)
    command.set_defaults(run=run)


def _lines(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 0")
    return int(text)


def run(options: argparse.Namespace) -> PluginExit:
    """Write the archive. What cannot be read is named in it, and on the standard error."""
    from tokenbucket.plugin.connection import connect
    from tokenbucket.plugin.redaction import Redaction
    from tokenbucket.plugin.screen import plain
    from tokenbucket.plugin.sysdump_parts import Dump

    dump = Dump(connect(options), options.log_lines, options.live_service)
    redaction = Redaction()
    with _replacing(options.file) as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in _redacted(dump, redaction):
                _add(archive, f"{_ROOT}/{name}", content.encode())
        if not dump.answers:
            raise PluginError(
                f"{options.file}: not written, because nothing could be read: {dump.problems[0]}"
            )
    for problem in dump.problems:
        print(f"not in the archive: {plain(problem)}", file=sys.stderr)
    print(f"{options.file}: written; names of objects are not redacted, so read it before you publish it")
    return PluginExit.UNKNOWN if dump.problems else PluginExit.DONE


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that replaces the one at the path only if it is complete. Only its owner can read it."""
    action = "choose another --file"
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise PluginError(f"{path}: is not a regular file; {action}")
    try:
        with ExitStack() as stack:
            file = stack.enter_context(
                NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)
            )
            partial = Path(file.name)
            stack.callback(partial.unlink, missing_ok=True)
            yield file
            file.flush()
            partial.replace(target)
    except OSError as error:
        raise PluginError(f"{path}: cannot be written: {error.strerror}; {action}") from error


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
