"""Define the command line. Each command has its own module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tokenbucket import __version__
from tokenbucket.cli import agent, attach, check, cleanup, controller, detach, inspect, status, validate
from tokenbucket.errors import ExitCode, LoadError, SpecError, TokenBucketError, UnsupportedError
from tokenbucket.node.visibility import UnseenError

_VERBS = (agent, controller, cleanup, status, inspect, attach, detach, validate, check)
_EPILOG = "exit status: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode)


_EXIT_CODES = {
    SpecError: ExitCode.INVALID,
    UnsupportedError: ExitCode.UNSUPPORTED,
    LoadError: ExitCode.UNSUPPORTED,
    UnseenError: ExitCode.UNSEEN,
    TokenBucketError: ExitCode.FAILED,
}
"""The first kind that fits counts."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="tokenbucket",
        description="Limits the traffic of pods and interfaces in the kernel.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"tokenbucket {__version__}")
    verbs = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in _VERBS:
        module.add_parser(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    given, top = sys.argv[1:] if arguments is None else arguments, parser()
    if not_text := [each for each in given if not each.isprintable()]:
        top.error(f"argument {not_text[0]!a}: must be printable UTF-8 text; correct the argument")
    options = top.parse_args(given)
    try:
        return int(options.run(options))
    except TokenBucketError as error:
        return _failed(error, next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)))
    except BrokenPipeError:
        sys.stderr.close()  # the reader closed the pipe, as `| head` does
        return ExitCode.FAILED
    except OSError as error:
        return _failed(f"{error.filename or 'system'}: {error.strerror}", ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.FAILED


def _failed(error: Exception | str, code: ExitCode) -> int:
    print(f"tokenbucket: {error}", file=sys.stderr)
    return code
