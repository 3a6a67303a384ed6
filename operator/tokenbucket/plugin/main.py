"""Define the command line of the plugin. Each command has its own module.

A command imports the client, rich and most of the core only when it runs: packages may be missing, and
completion and the first screen must be fast.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tokenbucket import __version__
from tokenbucket.errors import TokenBucketError
from tokenbucket.plugin import (
    check,
    completion,
    explain,
    migrate,
    status,
    suggest,
    sysdump,
    top,
)
from tokenbucket.plugin.errors import PluginError
from tokenbucket.plugin.exit_codes import PluginExit
from tokenbucket.plugin.options import DEFAULTS, refuse_unused, shared_options, word_of
from tokenbucket.plugin.plain_text import plain

PROGRAM = "kubectl tokenbucket"
_COMMANDS = (
    check,
    completion,
    explain,
    migrate,
    status,
    suggest,
    sysdump,
    top,
)
_EPILOG = "exit status: " + "; ".join(f"{code.value} {code.meaning}" for code in PluginExit)


class _Parser(argparse.ArgumentParser):
    """Names the words that an argument may have. The parsers of commands have this class, too."""

    def _registry_get(self, registry_name: str, value: Any, default: Any = None) -> Any:  # noqa: ANN401 - as its base
        if registry_name == "type" and isinstance(value, type) and issubclass(value, enum.Enum):
            return word_of(value)
        return super()._registry_get(registry_name, value, default)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = _Parser(
        prog=PROGRAM,
        description="Shows which limits pods have, and why a pod is not limited as declared.",
        epilog=_EPILOG,
        parents=[shared_options()],
    )
    top.set_defaults(**DEFAULTS)
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:  # a new parser for each: defaults of the top belong to its own options
        module.add_parser(commands, shared_options())
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    try:
        with _interrupted_by_signals():
            return _run(arguments)
    except ModuleNotFoundError as error:
        text = f"Python package {error.name}: is missing; install it with pip install '.[cli]' in a checkout"
        return _failed(text, PluginExit.UNSUPPORTED)
    except TokenBucketError as error:
        return _failed(error, error.code if isinstance(error, PluginError) else PluginExit.FAILED)
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        return _discard_output()
    except OSError as error:
        _discard_output()
        text = (
            f"{error.filename or 'standard output'}: {error.strerror or error}; check the file and its disk"
        )
        return _failed(text, PluginExit.FAILED)
    except KeyboardInterrupt as error:
        return _failed(error, PluginExit.FAILED) if hasattr(error, "__notes__") else PluginExit.FAILED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parser().parse_args(_split_resource(sys.argv[1:] if arguments is None else arguments))
        refuse_unused(options)
        code = int(options.run(options))
    except SystemExit as ended:  # --help, --version and wrong usage
        code = int(ended.code or 0)
    if sys.stdout:  # None if the shell closed it
        sys.stdout.flush()
    return code


def _split_resource(arguments: Sequence[str]) -> list[str]:
    """Accept ``explain pod/NAME`` for ``explain pod NAME``, as kubectl does."""
    words: list[str] = []
    for each in arguments:
        kind, _, name = each.partition("/")
        is_resource = kind == "pod" and name and words[:1] == ["explain"] and words[-1] != "--from"
        words += [kind, name] if is_resource else [each]
    return words


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that commands remove their pods and restore the terminal."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    wanted = [number for number in numbers if before[number] == signal.SIG_DFL]  # not below nohup

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in wanted:  # the second signal must not end the removal
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in wanted:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, before[number])


def _discard_output() -> int:
    """Discard what is left in the buffer: Python would fail to write it again at its end."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return PluginExit.FAILED


def _failed(error: BaseException | str, code: PluginExit) -> int:
    """Print an error with its notes, which name what the command leaves behind."""
    parts = [str(error) or "interrupted", *getattr(error, "__notes__", ())]
    print(f"{PROGRAM}: {plain(' '.join('; '.join(parts).split()))}", file=sys.stderr)
    return code
